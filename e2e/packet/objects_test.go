package packet

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const namespace = "default"

func key(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// newNode is a Node object; each node is a zone of its own.
func newNode(name string) *corev1.Node {
	var cidrs []string
	for _, p := range podNets(name) {
		cidrs = append(cidrs, p.String())
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: "zone-" + name,
		}},
		Spec: corev1.NodeSpec{PodCIDR: cidrs[0], PodCIDRs: cidrs},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: places[name].v4.String()},
			{Type: corev1.NodeInternalIP, Address: places[name].v6.String()},
		}},
	}
}

// edit changes a Service.
type edit func(*corev1.Service)

// service makes a Service, or changes the one that there is. A new one is a ClusterIP of the scenario's family with TCP port 80, which the pods
// have as 8080.
func (s *scenario) service(name string, edits ...edit) *corev1.Service {
	s.Helper()
	svc := s.services[name]
	if svc == nil {
		cip := s.clusterIP(name).String()
		family := corev1.IPFamily(s.text(string(corev1.IPv4Protocol), string(corev1.IPv6Protocol)))
		svc = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: cip, ClusterIPs: []string{cip}, IPFamilies: []corev1.IPFamily{family},
				Ports: []corev1.ServicePort{portOf("http", corev1.ProtocolTCP, 80, 8080)},
			},
		}
	}
	svc = svc.DeepCopy()
	for _, e := range edits {
		e(svc)
	}
	s.services[name] = svc
	s.tellAll(order{Key: key(svc), Service: svc})
	return svc
}

func (s *scenario) deleteService(name string) {
	s.Helper()
	s.tellAll(order{Key: key(s.services[name]), DeleteService: true})
	delete(s.services, name)
}

// clusterIP is the ClusterIP of the Service of a name.
func (s *scenario) clusterIP(name string) netip.Addr {
	n := 0
	for _, c := range name {
		n = (n*31 + int(c)) % 251
	}
	return at("10.96.0.%d", "fd00:96::%d", n+1).in(s.v6)
}

func portOf(name string, protocol corev1.Protocol, port, target int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: protocol, Port: port, TargetPort: intstr.FromInt32(target)}
}

// ports replaces the ports of a Service.
func ports(list ...corev1.ServicePort) edit {
	return func(svc *corev1.Service) { svc.Spec.Ports = list }
}

// overUDP makes the only port a UDP port.
func overUDP(svc *corev1.Service) { svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP }

// onNodePort makes a Service one of type NodePort.
func onNodePort(port int32) edit {
	return func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Spec.Ports[0].NodePort = port
	}
}

// balanced makes a Service one of type LoadBalancer with the addresses, and no node port.
func balanced(addrs ...netip.Addr) edit {
	return func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Status.LoadBalancer.Ingress = nil
		for _, a := range addrs {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String()})
		}
	}
}

// withNodePort gives the only port a node port without changing the type.
func withNodePort(port int32) edit {
	return func(svc *corev1.Service) { svc.Spec.Ports[0].NodePort = port }
}

func externalLocal(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func externalCluster(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	svc.Spec.HealthCheckNodePort = 0
}

func internalLocal(svc *corev1.Service) {
	policy := corev1.ServiceInternalTrafficPolicyLocal
	svc.Spec.InternalTrafficPolicy = &policy
}

func healthCheck(port int32) edit {
	return func(svc *corev1.Service) { svc.Spec.HealthCheckNodePort = port }
}

func sourceRanges(ranges ...string) edit {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = ranges }
}

// sticky gives a Service session affinity; 0 seconds take it away.
func sticky(seconds int32) edit {
	return func(svc *corev1.Service) {
		svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
		if seconds > 0 {
			svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
}

func externalIPs(addrs ...netip.Addr) edit {
	return func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = nil
		for _, a := range addrs {
			svc.Spec.ExternalIPs = append(svc.Spec.ExternalIPs, a.String())
		}
	}
}

// endpoint is an entry of an EndpointSlice.
type endpoint struct {
	addr                        netip.Addr // the zero Addr: the pod's
	pod                         string
	nowhere                     bool // no node name
	ready, serving, terminating bool
	zones, nodes                []string // hints
}

// on is a ready endpoint: a pod, or a node for one in the host's network.
func on(pod string) endpoint { return endpoint{pod: pod, ready: true, serving: true} }

// stopping is an endpoint whose pod terminates but still serves.
func (e endpoint) stopping() endpoint {
	e.ready, e.terminating = false, true
	return e
}

// failing is an endpoint that is not ready.
func (e endpoint) failing() endpoint {
	e.ready, e.serving = false, false
	return e
}

// hint asks that nodes in the zone use the endpoint, hintNode that the node does.
func (e endpoint) hint(zone string) endpoint {
	e.zones = append(slices.Clone(e.zones), zone)
	return e
}

func (e endpoint) hintNode(node string) endpoint {
	e.nodes = append(slices.Clone(e.nodes), node)
	return e
}

// endpoints makes these the endpoints of a Service, in one slice, at the Service's target ports.
func (s *scenario) endpoints(service string, list ...endpoint) {
	s.Helper()
	s.slice(service, service+"-1", list...)
}

// slice makes or replaces one EndpointSlice of a Service.
func (s *scenario) slice(service, name string, list ...endpoint) *discoveryv1.EndpointSlice {
	s.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			discoveryv1.LabelServiceName: service,
		}},
		AddressType: discoveryv1.AddressType(s.text("IPv4", "IPv6")),
	}
	for _, p := range s.services[service].Spec.Ports {
		target := p.TargetPort.IntVal
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &target})
	}
	for _, e := range list {
		slice.Endpoints = append(slice.Endpoints, s.entry(e))
	}
	s.setSlice(slice)
	return slice
}

func (s *scenario) setSlice(slice *discoveryv1.EndpointSlice) {
	s.Helper()
	s.slices[slice.Name] = slice
	s.tellAll(order{Key: key(slice), Slice: slice})
}

func (s *scenario) deleteSlice(name string) {
	s.Helper()
	s.tellAll(order{Key: namespace + "/" + name, DeleteSlice: true})
	delete(s.slices, name)
}

func (s *scenario) entry(e endpoint) discoveryv1.Endpoint {
	addr := e.addr
	if !addr.IsValid() {
		addr = s.addr(e.pod)
	}
	out := discoveryv1.Endpoint{
		Addresses:  []string{addr.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &e.ready, Serving: &e.serving, Terminating: &e.terminating},
	}
	if node := s.node[e.pod]; node != "" && !e.nowhere {
		out.NodeName = &node
	}
	if len(e.zones)+len(e.nodes) > 0 {
		out.Hints = &discoveryv1.EndpointHints{}
		for _, z := range e.zones {
			out.Hints.ForZones = append(out.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
		for _, n := range e.nodes {
			out.Hints.ForNodes = append(out.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
	}
	return out
}

// names lists who answered.
func names(by map[string]int) string { return strings.Join(slices.Sorted(maps.Keys(by)), " ") }

// label changes a label of a Node.
func (s *scenario) label(node, key, value string) {
	s.Helper()
	s.changeNode(node, func(n *corev1.Node) { n.Labels[key] = value })
}

func (s *scenario) changeNode(node string, change func(*corev1.Node)) {
	s.Helper()
	n := s.machines[node].DeepCopy()
	change(n)
	s.machines[node] = n
	s.tell(node, order{Node: n})
}
