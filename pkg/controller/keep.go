package controller

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
)

// keptName is the name of the reservation that keeps a Service's addresses. Neither of the two names has a dot.
func keptName(service types.NamespacedName) string {
	return "kept." + service.Namespace + "." + service.Name
}

// keptFor returns the reservation that keeps the Service's addresses for it.
func keptFor(svc *corev1.Service) *v1beta1.AddressReservation {
	reservation := &v1beta1.AddressReservation{
		ObjectMeta: metav1.ObjectMeta{Name: keptName(client.ObjectKeyFromObject(svc)), Labels: map[string]string{v1beta1.LabelKept: "true"}},
		Spec:       v1beta1.AddressReservationSpec{For: &v1beta1.ReservedFor{Namespace: svc.Namespace, Service: svc.Name}},
	}
	for _, a := range assign.Addresses(svc) {
		reservation.Spec.Addresses = append(reservation.Spec.Addresses, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return reservation
}

// keep has the reservation of a Service follow its annotation and the addresses in its status. What the Service had last stays kept while
// it waits. A reservation that somebody else made under the name is left alone.
func (s *services) keep(ctx context.Context, svc *corev1.Service, ours bool) error {
	asked := ours && svc.Annotations[v1beta1.AnnotationKeep] == "true"
	var have v1beta1.AddressReservation
	err := s.client.Get(ctx, types.NamespacedName{Name: keptName(client.ObjectKeyFromObject(svc))}, &have)
	found := err == nil
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if !asked && !found {
		return nil
	}
	want := keptFor(svc)
	var done string
	switch {
	case found && have.Labels[v1beta1.LabelKept] != "true":
		return nil
	case !asked:
		done, err = "addresses no longer kept", s.client.Delete(ctx, &have, client.Preconditions{UID: ptr.To(have.UID)})
	case len(want.Spec.Addresses) == 0:
		return nil
	case !found:
		done, err = "addresses kept", s.client.Create(ctx, want)
	case slices.Equal(have.Spec.Addresses, want.Spec.Addresses) && ptr.Equal(have.Spec.For, want.Spec.For):
		return nil
	default:
		base := have.DeepCopy()
		have.Spec = want.Spec
		done, err = "addresses kept", s.client.Patch(ctx, &have, client.MergeFrom(base))
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the watch is about to tell of what the cache does not have yet, and the Service is looked at again
	}
	s.counters.wrote(kindOf(want), err)
	if err != nil {
		return fmt.Errorf("keep the addresses of Service %s in AddressReservation %s: %w", client.ObjectKeyFromObject(svc), want.Name, err)
	}
	s.log.Info(done, "service", client.ObjectKeyFromObject(svc), "reservation", want.Name, "addresses", want.Spec.Addresses)
	return nil
}

// ofReservation returns the Service that a reservation keeps addresses for.
func ofReservation(_ context.Context, object client.Object) []reconcile.Request {
	to := object.(*v1beta1.AddressReservation).Spec.For
	if to == nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: to.Namespace, Name: to.Service}}}
}
