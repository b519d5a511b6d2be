// Package controller gives Services of type LoadBalancer their addresses: it watches Services, pools, advertisements and nodes,
// lets pkg/ipam and pkg/config decide, and writes what they decided to the statuses.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// staleRetry is when to look again at a Service that the cache did not show as it is. The watch is faster as a rule.
const staleRetry = 50 * time.Millisecond

// services reconciles one Service at a time with what the allocator decides.
type services struct {
	client    client.Client // reads from the cache
	live      client.Reader // reads from the API server
	allocator *ipam.Allocator
	class     string
	recorder  events.EventRecorder
	log       *slog.Logger
	now       func() time.Time
	counters  *counters
	snapshot  *atomic.Pointer[snapshot]

	adopted <-chan struct{} // closed once the allocator knows every address in use
	waiting *waiting
	counted func() // called when the pools' counters may have changed
}

func (s *services) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	select {
	case <-s.adopted:
	case <-ctx.Done():
		return reconcile.Result{}, ctx.Err()
	}

	var svc corev1.Service // the cache's own: it is not to be changed
	if err := s.client.Get(ctx, req.NamespacedName, &svc, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			return reconcile.Result{}, s.gone(ctx, req.NamespacedName)
		}
		return reconcile.Result{}, err
	}
	namespace, err := s.namespaceLabels(ctx, req.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}

	mark := s.waiting.mark()
	begin := s.now()
	decision := assign.Decide(&svc, s.class, namespace, s.allocator, metav1.NewTime(begin))
	s.counters.decision.Observe(s.now().Sub(begin).Seconds())
	if decision.Eased {
		s.waiting.wake()
	}
	stale := s.waiting.set(req.NamespacedName, decision.Reason, svc.CreationTimestamp, mark)
	if !equality.Semantic.DeepEqual(svc.Status, decision.Status) {
		err := s.write(ctx, &svc, decision)
		switch {
		case apierrors.IsConflict(err):
			return reconcile.Result{RequeueAfter: staleRetry}, nil
		case apierrors.IsNotFound(err):
			return reconcile.Result{}, nil // the watch is about to say so
		case err != nil:
			return reconcile.Result{}, fmt.Errorf("write the status of Service %s: %w", req.NamespacedName, err)
		}
		svc.Status = decision.Status
	}

	// Now that the status says so, what the Service has no longer may be given to others.
	freed := s.allocator.Settle(req.NamespacedName, assign.Addresses(&svc))
	if decision.Reason == "" {
		freed = s.allocator.Release(req.NamespacedName) || freed
	}
	if freed {
		s.freed()
	}
	if err := s.keep(ctx, &svc, decision.Reason != ""); err != nil {
		return reconcile.Result{}, err
	}
	if stale {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	}
	return reconcile.Result{}, nil
}

// write patches the status, provided that the Service is still as it was when the decision was taken.
func (s *services) write(ctx context.Context, svc *corev1.Service, decision assign.Decision) error {
	base := svc
	svc = base.DeepCopy()
	svc.Status = decision.Status
	err := s.client.Status().Patch(ctx, svc, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsNotFound(err) {
		return err
	}
	s.counters.wrote(kindOf(svc), err)
	if err != nil {
		return err
	}
	s.counters.moved(s.snapshot.Load().config, assign.Addresses(base), assign.Addresses(svc), decision.Reason)
	s.counted()
	s.log.Debug("status written", "service", client.ObjectKeyFromObject(svc), "addresses", assign.Addresses(svc), "reason", decision.Reason)
	if e := decision.Event; e != nil {
		s.recorder.Eventf(svc, nil, e.Type, string(e.Reason), "AssignAddress", "%s", note(e.Message))
		s.log.Info(e.Message, "service", client.ObjectKeyFromObject(svc), "reason", e.Reason)
	}
	return nil
}

// gone releases the addresses of a Service that the cache does not have, after asking the API server: the cache may be older than
// the list that the addresses were adopted from.
func (s *services) gone(ctx context.Context, name types.NamespacedName) error {
	s.waiting.set(name, "", metav1.Time{}, 0)
	if !s.allocator.Holds(name) {
		return nil
	}
	var svc corev1.Service
	if err := s.live.Get(ctx, name, &svc); !apierrors.IsNotFound(err) {
		return err
	}
	if s.allocator.Release(name) {
		s.freed()
	}
	return nil
}

func (s *services) freed() {
	s.counted()
	s.waiting.wake()
}

func (s *services) namespaceLabels(ctx context.Context, name string) (labels.Set, error) {
	namespace := metadataOnly("Namespace")
	err := s.client.Get(ctx, types.NamespacedName{Name: name}, namespace)
	return namespace.Labels, client.IgnoreNotFound(err)
}

// metadataOnly stands for the metadata of a core kind, which is all that the cache keeps of it.
func metadataOnly(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}

// note shortens a message to what an Event may carry (1024 bytes).
func note(message string) string {
	const limit = 1024
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit-3], "") + "..."
}
