package dataplane

import (
	"net/netip"
	"slices"
	"unique"
)

// place is an endpoint at one port.
type place struct {
	addr netip.AddrPort
	*SliceEndpoint
}

// places collects the endpoints of a port from all slices, sorted, each once. While a pod moves from slice to slice, or its address from a
// terminating pod to a new one, an address is in two: the copy that is better off counts, whichever came last.
func (s *service) places(family Family, port ServicePort) []place {
	var all []place
	for _, slice := range s.slices {
		if slice.Family != family {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != port.Name || p.Protocol != port.Protocol {
				continue
			}
			for i := range slice.Endpoints {
				e := &slice.Endpoints[i]
				all = append(all, place{netip.AddrPortFrom(e.Addr, p.Port), e})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b place) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		return b.standing() - a.standing()
	})
	return slices.CompactFunc(all, func(a, b place) bool { return a.addr == b.addr })
}

// standing orders copies of an endpoint: what lives before what terminates, then by readiness.
func (e *SliceEndpoint) standing() (n int) {
	for i, is := range []bool{e.Serving, e.Ready, !e.Terminating} {
		if is {
			n |= 1 << i
		}
	}
	return n
}

// usable returns the ready ones that pass the filter; if there are none, those that terminate and serve yet (KEP-1669).
func (t *Tracker) usable(all []place, filter func(place) bool) []Endpoint {
	var ready, leaving []Endpoint
	for _, p := range all {
		switch {
		case !filter(p):
		case p.Ready:
			ready = append(ready, Endpoint{p.addr, t.isLocal(p)})
		case p.Serving && p.Terminating:
			leaving = append(leaving, Endpoint{p.addr, t.isLocal(p)})
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return leaving
}

// powered leaves out the endpoints on nodes that are down, if any other can take their place.
func (t *Tracker) powered(all []place) []place {
	if len(t.down) == 0 {
		return all
	}
	up := slices.DeleteFunc(slices.Clone(all), func(p place) bool { return t.down[p.Node] })
	if !slices.ContainsFunc(up, func(p place) bool { return p.Ready || p.Serving && p.Terminating }) {
		return all
	}
	return up
}

// topology returns the filter that the hints ask for. They hold only if every ready endpoint has some and one of them means this node, else
// the traffic would go nowhere, or to a few endpoints that happen to be updated first.
func (t *Tracker) topology(all []place) func(place) bool {
	forNode, forZone, allNodes, allZones := false, false, true, true
	for _, p := range all {
		if !p.Ready {
			continue
		}
		allNodes = allNodes && len(p.Nodes) > 0
		allZones = allZones && len(p.Zones) > 0
		forNode = forNode || slices.Contains(p.Nodes, t.name)
		forZone = forZone || slices.Contains(p.Zones, t.zone)
	}
	switch {
	case allNodes && forNode:
		return func(p place) bool { return slices.Contains(p.Nodes, t.name) }
	case allZones && forZone:
		return func(p place) bool { return slices.Contains(p.Zones, t.zone) }
	}
	return anywhere
}

// zoned tells whether an endpoint has a hint for a zone.
func (s *service) zoned() bool {
	return slices.ContainsFunc(s.slices, func(n namedSlice) bool {
		return slices.ContainsFunc(n.Endpoints, func(e SliceEndpoint) bool { return len(e.Zones) > 0 })
	})
}

// nowhere is the name of an unknown node or zone.
var nowhere = unique.Make("")

func anywhere(place) bool { return true }

func (t *Tracker) isLocal(p place) bool { return t.name != nowhere && p.Node == t.name }

// serving returns the endpoints that may keep their flows. A Service with publishNotReadyAddresses has ready endpoints that don't serve.
func serving(all []place) (out []netip.AddrPort) {
	for _, p := range all {
		if p.Serving || p.Ready {
			out = append(out, p.addr)
		}
	}
	return out
}
