package announce

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// Ours tells whether a Service is ours to announce: of type LoadBalancer, and classless or of our class.
func Ours(svc *corev1.Service, class string) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp == nil &&
		(svc.Spec.LoadBalancerClass == nil || class != "" && *svc.Spec.LoadBalancerClass == class)
}

// ServiceOf returns what a Service itself says; its endpoints are for the caller to add.
func ServiceOf(svc *corev1.Service) Service {
	_, _, shared := v1beta1.Annotation(svc.Annotations, v1beta1.AnnotationShareKey)
	return Service{
		Labels: svc.Labels,
		Shared: shared,
		Local:  svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
}

// Serves tells whether an endpoint takes connections. One that terminates does until its serving condition says otherwise (KEP-1672); a
// missing ready condition means ready.
func Serves(e *discoveryv1.Endpoint) bool {
	ready, serving := e.Conditions.Ready == nil || *e.Conditions.Ready, e.Conditions.Serving != nil && *e.Conditions.Serving
	return ready || serving
}

// NodeOf returns what a Node object says; of its speaker the caller has to know. With ignoreExclude, the label that keeps external load
// balancers away is not heeded.
func NodeOf(n *corev1.Node, ignoreExclude bool) Node {
	node := Node{Name: n.Name, Labels: n.Labels}
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	node.Excluded = excluded && !ignoreExclude
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionTrue {
			node.NetworkUnavailable = true
		}
	}
	return node
}
