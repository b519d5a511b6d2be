package dataplane

import (
	"net/netip"
	"slices"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Slice is what matters of an EndpointSlice. Names that many share are kept once for all.
type Slice struct {
	Service   string // namespace/name
	Family    Family
	Ports     []SlicePort
	Endpoints []SliceEndpoint
	Trigger   time.Time // of the change that led to it, as far as the cluster knows; else zero
}

// SlicePort is the place of a port of the Service at all endpoints of a Slice.
type SlicePort struct {
	Name     unique.Handle[string]
	Protocol Protocol
	Port     uint16
}

// SliceEndpoint is an endpoint of a Slice.
type SliceEndpoint struct {
	Addr                        netip.Addr
	Node                        unique.Handle[string] // of the empty string if unknown
	Ready, Serving, Terminating bool
	Zones, Nodes                []unique.Handle[string] // that it is meant for; nil if nothing is said
}

// SliceOf takes from an EndpointSlice what matters. It is false where that is nothing: the slice is of another kind of address, of no Service,
// of a headless one, or of one that another proxy serves.
func SliceOf(slice *discoveryv1.EndpointSlice) (Slice, bool) {
	service := slice.Labels[discoveryv1.LabelServiceName]
	_, headless := slice.Labels[corev1.IsHeadlessService]
	_, other := slice.Labels[labelProxyName]
	if service == "" || headless || other {
		return Slice{}, false
	}
	s := Slice{Service: slice.Namespace + "/" + service}
	switch slice.AddressType {
	case discoveryv1.AddressTypeIPv4:
		s.Family = IPv4
	case discoveryv1.AddressTypeIPv6:
		s.Family = IPv6
	default:
		return Slice{}, false
	}
	// The trigger is of use to a metric only; one that doesn't parse is as good as none.
	s.Trigger, _ = time.Parse(time.RFC3339Nano, slice.Annotations[corev1.EndpointsLastChangeTriggerTime])
	for _, p := range slice.Ports {
		if p.Name == nil || p.Port == nil {
			continue
		}
		var text corev1.Protocol
		if p.Protocol != nil {
			text = *p.Protocol
		}
		protocol, known := protocolOf(text)
		number, ok := portNumber(*p.Port)
		if known && ok {
			s.Ports = append(s.Ports, SlicePort{unique.Make(*p.Name), protocol, number})
		}
	}
	s.Endpoints = make([]SliceEndpoint, 0, len(slice.Endpoints))
	for i := range slice.Endpoints {
		if e, ok := endpointOf(&slice.Endpoints[i], s.Family); ok {
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	return s, true
}

// endpointOf reads an endpoint: the API says that all its addresses are the same, that consumers use the first, and what a missing
// condition means.
func endpointOf(in *discoveryv1.Endpoint, family Family) (SliceEndpoint, bool) {
	if len(in.Addresses) == 0 {
		return SliceEndpoint{}, false
	}
	addr, ok := parseAddr(in.Addresses[0])
	if !ok || familyOf(addr) != family {
		return SliceEndpoint{}, false
	}
	is := func(condition *bool, otherwise bool) bool {
		if condition == nil {
			return otherwise
		}
		return *condition
	}
	e := SliceEndpoint{
		Addr:        addr,
		Node:        unique.Make(""),
		Ready:       is(in.Conditions.Ready, true),
		Serving:     is(in.Conditions.Serving, true),
		Terminating: is(in.Conditions.Terminating, false),
	}
	if in.NodeName != nil {
		e.Node = unique.Make(*in.NodeName)
	}
	if in.Hints != nil {
		for _, zone := range in.Hints.ForZones {
			e.Zones = append(e.Zones, unique.Make(zone.Name))
		}
		for _, node := range in.Hints.ForNodes {
			e.Nodes = append(e.Nodes, unique.Make(node.Name))
		}
	}
	return e, true
}

// sameContent tells whether both lead to the same rules.
func (s *Slice) sameContent(o *Slice) bool {
	return s.Service == o.Service && s.Family == o.Family && slices.Equal(s.Ports, o.Ports) &&
		slices.EqualFunc(s.Endpoints, o.Endpoints, func(a, b SliceEndpoint) bool {
			return a.Addr == b.Addr && a.Node == b.Node && a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating &&
				slices.Equal(a.Zones, b.Zones) && slices.Equal(a.Nodes, b.Nodes)
		})
}
