package speaker

import (
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	speakerPods         = "app.kubernetes.io/name=steelyard,app.kubernetes.io/component=speaker"
	endpointsOfServices = discoveryv1.LabelServiceName + ",!" + corev1.IsHeadlessService
)

// loadBalancers selects the Services whose type is LoadBalancer; one that gets another type is reported as deleted.
var loadBalancers = fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer))

// serviceOf returns what matters of a Service, and whether it is ours to announce.
func serviceOf(name string, svc *corev1.Service, class string) (Service, bool) {
	if !announce.Ours(svc, class) {
		return Service{}, false
	}
	spec := announce.ServiceOf(svc)
	s := Service{Name: name, Labels: spec.Labels, Local: spec.Local, Shared: spec.Shared}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			s.Addrs = append(s.Addrs, a.Unmap())
		}
	}
	for _, c := range svc.Status.Conditions {
		if c.Type == v1beta1.ConditionAnnounced && c.Status == metav1.ConditionFalse {
			s.Complaint, s.ComplaintReason = c.Message, announce.Reason(c.Reason)
		}
	}
	return s, true
}

// endpointsOf returns which nodes can serve, and how many endpoints are here.
func endpointsOf(s *discoveryv1.EndpointSlice, here string) Endpoints {
	e := Endpoints{Service: s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
	for i := range s.Endpoints {
		if !announce.Serves(&s.Endpoints[i]) {
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
	known := announce.NodeOf(n, ignoreExclude)
	node := Node{Name: known.Name, Labels: known.Labels, Excluded: known.Excluded, NetworkUnavailable: known.NetworkUnavailable}
	if n.Name == here {
		node.Annotations = n.Annotations
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
