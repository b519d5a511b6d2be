package dataplane

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/utils/net"
)

// labelProxyName marks Services and their EndpointSlices as those of another proxy, whatever its value.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// Service is what matters of a Service here. Addresses of both families are together in its lists; what doesn't parse is left out.
type Service struct {
	Created         time.Time
	Class           string       // spec.loadBalancerClass; empty for none
	ClusterIPs      []netip.Addr // at most one of a family; a family without one has no ports
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // those whose traffic arrives with the address as its destination (ipMode VIP, KEP-1860)
	Ports           []ServicePort
	SourceRanges    []netip.Prefix // sorted, none contains another
	InternalLocal   bool
	ExternalLocal   bool
	HealthCheckPort uint16        // 0 for none
	Affinity        time.Duration // 0 for none
}

// ServicePort is a port of a Service. Neither its name and protocol nor its number and protocol are those of another.
type ServicePort struct {
	Name     unique.Handle[string]
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0 for none
}

// ServiceOf takes from a Service what matters. It is false where no proxy, or another one, serves it.
func ServiceOf(svc *corev1.Service) (Service, bool) {
	if _, other := svc.Labels[labelProxyName]; other || svc.Spec.Type == corev1.ServiceTypeExternalName ||
		svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return Service{}, false
	}
	balanced := svc.Spec.Type == corev1.ServiceTypeLoadBalancer
	nodePorts := balanced || svc.Spec.Type == corev1.ServiceTypeNodePort
	s := Service{
		Created:       svc.CreationTimestamp.Time,
		ClusterIPs:    clusterIPs(svc),
		ExternalIPs:   addrs(svc.Spec.ExternalIPs),
		Ports:         servicePorts(svc.Spec.Ports, nodePorts),
		InternalLocal: svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		Affinity:      affinity(svc),
	}
	// A status that was left behind when the type changed is not an address that anybody assigns.
	if balanced {
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			if ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP {
				s.LoadBalancerIPs = appendAddr(s.LoadBalancerIPs, ingress.IP)
			}
		}
		s.SourceRanges = sourceRanges(svc.Spec.LoadBalancerSourceRanges)
		if svc.Spec.LoadBalancerClass != nil {
			s.Class = *svc.Spec.LoadBalancerClass
		}
		if s.ExternalLocal {
			s.HealthCheckPort, _ = portNumber(svc.Spec.HealthCheckNodePort)
		}
	}
	return s, true
}

// clusterIPs returns the cluster addresses; spec.ipFamilies is empty in objects older than dual stack.
func clusterIPs(svc *corev1.Service) (out []netip.Addr) {
	if len(svc.Spec.IPFamilies) == 0 {
		return appendAddr(nil, svc.Spec.ClusterIP)
	}
	for i, family := range svc.Spec.IPFamilies {
		if i >= len(svc.Spec.ClusterIPs) {
			break
		}
		addr, ok := parseAddr(svc.Spec.ClusterIPs[i])
		if ok && (family == corev1.IPv4Protocol) == addr.Is4() && !slices.ContainsFunc(out, func(a netip.Addr) bool { return a.Is4() == addr.Is4() }) {
			out = append(out, addr)
		}
	}
	return out
}

// clusterIP returns the cluster address of a family.
func (s *Service) clusterIP(family Family) (netip.Addr, bool) {
	i := slices.IndexFunc(s.ClusterIPs, func(a netip.Addr) bool { return familyOf(a) == family })
	if i < 0 {
		return netip.Addr{}, false
	}
	return s.ClusterIPs[i], true
}

func servicePorts(ports []corev1.ServicePort, nodePorts bool) []ServicePort {
	out := make([]ServicePort, 0, len(ports))
	for _, p := range ports {
		protocol, known := protocolOf(p.Protocol)
		number, ok := portNumber(p.Port)
		port := ServicePort{Name: unique.Make(p.Name), Protocol: protocol, Port: number}
		if !known || !ok || slices.ContainsFunc(out, func(q ServicePort) bool {
			return q.Protocol == port.Protocol && (q.Name == port.Name || q.Port == port.Port)
		}) {
			continue
		}
		if nodePorts {
			port.NodePort, _ = portNumber(p.NodePort)
			if slices.ContainsFunc(out, func(q ServicePort) bool { return q.Protocol == port.Protocol && q.NodePort == port.NodePort }) {
				port.NodePort = 0
			}
		}
		out = append(out, port)
	}
	return out
}

func affinity(svc *corev1.Service) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(corev1.DefaultClientIPServiceAffinitySeconds)
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil && *c.ClientIP.TimeoutSeconds > 0 {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

// sourceRanges returns the ranges that parse, of both families. The API server lets padded ones pass.
func sourceRanges(texts []string) (out []netip.Prefix) {
	for _, text := range texts {
		if p, ok := parsePrefix(text); ok {
			out = append(out, p)
		}
	}
	return disjoint(out)
}

// disjoint masks and sorts the ranges, in place, and leaves out those that another one contains.
func disjoint(all []netip.Prefix) []netip.Prefix {
	for i, p := range all {
		all[i] = p.Masked()
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	// By address, then length, a range comes after the one that contains it, with nothing between them but others of its kind.
	out := all[:0]
	for _, p := range all {
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// rangesOf returns the source ranges of a family; nil where it has none, or one that is everything.
func rangesOf(all []netip.Prefix, family Family) (out []netip.Prefix) {
	for _, p := range all {
		if familyOf(p.Addr()) != family {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		out = append(out, p)
	}
	return out
}

func addrs(texts []string) (out []netip.Addr) {
	for _, text := range texts {
		out = appendAddr(out, text)
	}
	return out
}

// appendAddr appends the address if it parses and is not there.
func appendAddr(list []netip.Addr, text string) []netip.Addr {
	if addr, ok := parseAddr(text); ok && !slices.Contains(list, addr) {
		return append(list, addr)
	}
	return list
}

// parseAddr reads an address as leniently as the API server does for objects that it already stores (leading zeros are decimal). It is
// false also for addresses that mean something else to every host, which nobody may take over, and that no packet can be sent on to.
func parseAddr(text string) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(utilnet.ParseIPSloppy(strings.TrimSpace(text)))
	addr = addr.Unmap()
	special := addr.IsUnspecified() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() ||
		addr == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return addr, ok && !special
}

func parsePrefix(text string) (netip.Prefix, bool) {
	_, ipNet, err := utilnet.ParseCIDRSloppy(strings.TrimSpace(text))
	if err != nil {
		return netip.Prefix{}, false
	}
	addr, _ := netip.AddrFromSlice(ipNet.IP)
	bits, _ := ipNet.Mask.Size()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits), true
}

func portNumber(n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		return 0, false
	}
	return uint16(n), true
}

func protocolOf(p corev1.Protocol) (Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "": // the default of the API
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

func familyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}
