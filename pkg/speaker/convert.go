package speaker

import (
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	speakerPods         = "app.kubernetes.io/name=steelyard,app.kubernetes.io/component=speaker"
	endpointsOfServices = discoveryv1.LabelServiceName + ",!" + corev1.IsHeadlessService
)

// loadBalancers selects the Services whose type is LoadBalancer; one that gets another type is reported as deleted.
var loadBalancers = fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer))

// serviceOf returns what matters of a Service, and whether it is ours to announce: classless or of our class.
func serviceOf(name string, svc *corev1.Service, class string) (Service, bool) {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.DeletionTimestamp != nil ||
		svc.Spec.LoadBalancerClass != nil && (class == "" || *svc.Spec.LoadBalancerClass != class) {
		return Service{}, false
	}
	s := Service{
		Name:   name,
		Labels: svc.Labels,
		Local:  svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	_, _, s.Shared = v1beta1.Annotation(svc.Annotations, v1beta1.AnnotationShareKey)
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			s.Addrs = append(s.Addrs, a.Unmap())
		}
	}
	for _, c := range svc.Status.Conditions {
		if c.Type == v1beta1.ConditionAnnounced && c.Status == metav1.ConditionFalse {
			s.Complaint = c.Message
		}
	}
	return s, true
}

// endpointsOf returns which nodes can serve, and how many endpoints are here. An endpoint that terminates serves until its serving
// condition says otherwise (KEP-1672); a missing ready condition means ready.
func endpointsOf(s *discoveryv1.EndpointSlice, here string) Endpoints {
	e := Endpoints{Service: s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
	for i := range s.Endpoints {
		c := &s.Endpoints[i].Conditions
		ready, serving := c.Ready == nil || *c.Ready, c.Serving != nil && *c.Serving
		if !ready && !serving {
			continue
		}
		node := ""
		if s.Endpoints[i].NodeName != nil {
			node = *s.Endpoints[i].NodeName
		}
		if node == here {
			e.Here++
		}
		if !slices.Contains(e.Serving, node) {
			e.Serving = append(e.Serving, node)
		}
	}
	slices.Sort(e.Serving)
	return e
}

// nodeOf returns what matters of a Node. Of the node here its annotations may, which say where routers are.
func nodeOf(n *corev1.Node, here string, ignoreExclude bool) Node {
	node := Node{Name: n.Name, Labels: n.Labels}
	if n.Name == here {
		node.Annotations = n.Annotations
	}
	if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded && !ignoreExclude {
		node.Excluded = true
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionTrue {
			node.NetworkUnavailable = true
		}
	}
	return node
}

// peers are the addresses of the other nodes' speakers, as the API knows them.
type peers struct {
	node string

	mu    sync.Mutex
	byPod map[string]netip.Addr
}

func (p *peers) set(key string, pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byPod, key)
	if addr, err := netip.ParseAddr(pod.Status.PodIP); err == nil && pod.Spec.NodeName != p.node &&
		pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
		p.byPod[key] = addr
	}
}

func (p *peers) remove(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byPod, key)
}

func (p *peers) addrs() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []netip.Addr
	for _, a := range p.byPod {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// passwords selects the Secrets that BGPPeers may take their passwords from.
var passwords = fields.OneTermEqualSelector("type", string(corev1.SecretTypeBasicAuth))
