package cluster

import (
	"context"
	"fmt"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// LeaseName is the Lease by which the controller's replicas agree on a leader.
const LeaseName = "steelyard-controller"

// Scheme returns one with the kinds of Kubernetes and of Steelyard.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // two types of one name
		}
	}
	return scheme
}

// Read reads the cluster; of Services, EndpointSlices and ServiceAnnouncements those in the namespace only, unless that is "". What the user
// may not read, or the cluster does not have, becomes a gap; any other failure is an error.
func Read(ctx context.Context, reader client.Reader, namespace string) (*Snapshot, error) {
	var services corev1.ServiceList
	var namespaces corev1.NamespaceList
	var nodes corev1.NodeList
	var pods corev1.PodList
	var slices discoveryv1.EndpointSliceList
	var pools v1beta1.IPAddressPoolList
	var reservations v1beta1.AddressReservationList
	var l2 v1beta1.L2AdvertisementList
	var bgp v1beta1.BGPAdvertisementList
	var peers v1beta1.BGPPeerList
	var profiles v1beta1.BFDProfileList
	var communities v1beta1.CommunityList
	var announcements v1beta1.ServiceAnnouncementList
	var sessions v1beta1.BGPSessionList
	within := client.InNamespace(namespace)
	s := &Snapshot{}
	err := s.read(ctx, reader, []part{
		{Services, &services, []client.ListOption{within}},
		{Namespaces, &namespaces, nil},
		{Nodes, &nodes, nil},
		{Pods, &pods, []client.ListOption{client.MatchingLabels{labelName: "steelyard"}}},
		{EndpointSlices, &slices, []client.ListOption{within}},
		{IPAddressPools, &pools, nil},
		{AddressReservations, &reservations, nil},
		{L2Advertisements, &l2, nil},
		{BGPAdvertisements, &bgp, nil},
		{BGPPeers, &peers, nil},
		{BFDProfiles, &profiles, nil},
		{Communities, &communities, nil},
		{Announcements, &announcements, []client.ListOption{within}},
		{Sessions, &sessions, nil},
	})
	if err != nil {
		return nil, err
	}
	s.Services, s.Namespaces, s.EndpointSlices = services.Items, namespaces.Items, slices.Items
	s.Pools, s.Reservations = pools.Items, reservations.Items
	s.L2Advertisements, s.BGPAdvertisements = l2.Items, bgp.Items
	s.BGPPeers, s.BFDProfiles, s.Communities = peers.Items, profiles.Items, communities.Items
	s.Announcements, s.Sessions = announcements.Items, sessions.Items
	if s.Knows(Nodes) {
		s.Nodes = append([]corev1.Node{}, nodes.Items...) // nil would say that they are not known
	}
	for i := range pods.Items {
		s.putPod(&pods.Items[i])
	}
	return s, s.readLease(ctx, reader)
}

// part is one list of a snapshot.
type part struct {
	resource string
	into     client.ObjectList
	options  []client.ListOption
}

// read reads all parts at a time, so that a distant API server costs one round trip.
func (s *Snapshot) read(ctx context.Context, reader client.Reader, parts []part) error {
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() { errs[i] = reader.List(ctx, p.into, p.options...) })
	}
	wg.Wait()
	for i, p := range parts {
		if err := s.gap(p.resource, errs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Snapshot) readLease(ctx context.Context, reader client.Reader) error {
	if s.Namespace == "" {
		return nil
	}
	lease := &coordinationv1.Lease{}
	err := reader.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: LeaseName}, lease)
	switch {
	case err == nil:
		s.Lease = lease
	case apierrors.IsNotFound(err):
	default:
		return s.gap(Leases, err)
	}
	return nil
}

// gap notes what can't be read and returns every other error.
func (s *Snapshot) gap(resource string, err error) error {
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		s.Gaps = append(s.Gaps, Gap{resource, "you may not list them: ask for that right"})
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		s.Gaps = append(s.Gaps, Gap{resource, "the cluster does not have this kind: install Steelyard's CRDs"})
	default:
		return fmt.Errorf("list %s: %w", resource, err)
	}
	return nil
}
