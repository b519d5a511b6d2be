// Package cluster is what can be known of a Kubernetes cluster and of Steelyard in it: the objects that configure it, those that it serves,
// and those that it writes.
package cluster

import (
	"fmt"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Labels of Steelyard's pods.
const (
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
)

// Snapshot is the cluster at one time. A copy of it can be changed by Put without changing the original.
type Snapshot struct {
	// Resources are what config.Parse takes. Its Namespace is found by the pods, and its Secrets are never read.
	config.Resources

	Services       []corev1.Service
	Namespaces     []corev1.Namespace
	EndpointSlices []discoveryv1.EndpointSlice
	Announcements  []v1beta1.ServiceAnnouncement
	Sessions       []v1beta1.BGPSession
	Speakers       []corev1.Pod
	Controllers    []corev1.Pod
	// Lease is the controller's, which says who leads; nil if there is none.
	Lease *coordinationv1.Lease
	// Gaps are the parts that could not be read; they are empty above.
	Gaps []Gap
}

// Gap is a part of a snapshot that could not be read.
type Gap struct {
	// Resource is the plural name with its group, such as endpointslices.discovery.k8s.io.
	Resource string `json:"resource"`
	// Why is what the API server said.
	Why string `json:"why"`
}

// Resources of the parts of a snapshot, as in Gap.
const (
	Services            = "services"
	Namespaces          = "namespaces"
	Nodes               = "nodes"
	Pods                = "pods"
	EndpointSlices      = "endpointslices.discovery.k8s.io"
	Leases              = "leases.coordination.k8s.io"
	IPAddressPools      = "ipaddresspools.steelyard.io"
	AddressReservations = "addressreservations.steelyard.io"
	L2Advertisements    = "l2advertisements.steelyard.io"
	BGPAdvertisements   = "bgpadvertisements.steelyard.io"
	BGPPeers            = "bgppeers.steelyard.io"
	BFDProfiles         = "bfdprofiles.steelyard.io"
	Communities         = "communities.steelyard.io"
	Announcements       = "serviceannouncements.steelyard.io"
	Sessions            = "bgpsessions.steelyard.io"
)

// Knows tells whether all of these resources could be read.
func (s *Snapshot) Knows(resources ...string) bool {
	return !slices.ContainsFunc(s.Gaps, func(g Gap) bool { return slices.Contains(resources, g.Resource) })
}

// Put adds the object, or replaces the one of its kind and name. Of Pods it takes those of Steelyard.
func (s *Snapshot) Put(object client.Object) error {
	switch o := object.(type) {
	case *v1beta1.IPAddressPool:
		put(&s.Pools, o)
	case *v1beta1.AddressReservation:
		put(&s.Reservations, o)
	case *v1beta1.L2Advertisement:
		put(&s.L2Advertisements, o)
	case *v1beta1.BGPAdvertisement:
		put(&s.BGPAdvertisements, o)
	case *v1beta1.BGPPeer:
		put(&s.BGPPeers, o)
	case *v1beta1.BFDProfile:
		put(&s.BFDProfiles, o)
	case *v1beta1.Community:
		put(&s.Communities, o)
	case *v1beta1.ServiceAnnouncement:
		put(&s.Announcements, o)
	case *v1beta1.BGPSession:
		put(&s.Sessions, o)
	case *corev1.Service:
		put(&s.Services, o)
	case *corev1.Namespace:
		put(&s.Namespaces, o)
	case *corev1.Node:
		put(&s.Nodes, o)
	case *discoveryv1.EndpointSlice:
		put(&s.EndpointSlices, o)
	case *coordinationv1.Lease:
		s.Lease = o
	case *corev1.Pod:
		s.putPod(o)
	default:
		return fmt.Errorf("%T is of no kind that matters here", object)
	}
	return nil
}

func (s *Snapshot) putPod(pod *corev1.Pod) {
	into := map[string]*[]corev1.Pod{"speaker": &s.Speakers, "controller": &s.Controllers}[pod.Labels[labelComponent]]
	if into == nil {
		return
	}
	s.Namespace = pod.Namespace
	if phase := pod.Status.Phase; phase != corev1.PodFailed && phase != corev1.PodSucceeded { // else it has ended, and another one has its place
		put(into, pod)
	}
}

func put[T any, P interface {
	*T
	client.Object
}](list *[]T, object P) {
	next := slices.Clone(*list)
	for i := range next {
		if old := P(&next[i]); old.GetNamespace() == object.GetNamespace() && old.GetName() == object.GetName() {
			next[i] = *object
			*list = next
			return
		}
	}
	*list = append(next, *object)
}
