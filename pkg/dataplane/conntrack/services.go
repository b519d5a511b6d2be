// Package conntrack forgets the UDP flows that the kernel would go on sending to a place that no longer serves.
//
// The NAT rules see the first packet of a flow only; what they decide is kept in the flow's conntrack entry for as long as packets come. A TCP
// client notices that its server is gone and connects again, a UDP client may go on for ever: so its entry has to go. SCTP and TCP
// entries are never touched, or connections to pods that shut down gracefully would break.
package conntrack

import (
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Entry is what an entry of the kernel's table says about one UDP flow.
type Entry struct {
	Dst    netip.AddrPort // where the client sends to
	Server netip.AddrPort // where the answers come from; Dst itself if nothing was translated
}

type nodePort struct {
	family dataplane.Family
	port   uint16
}

// Services tells which UDP flows to Services may stay.
type Services struct {
	addrs     map[netip.AddrPort][]netip.AddrPort
	nodePorts map[nodePort][]netip.AddrPort
}

// New returns Services without frontends.
func New() *Services {
	return &Services{addrs: map[netip.AddrPort][]netip.AddrPort{}, nodePorts: map[nodePort][]netip.AddrPort{}}
}

// Gone tells that nothing serves the port's frontends any more, unless Serve is called afterwards for another port that has them.
func (s *Services) Gone(p *dataplane.Port) { s.set(p, nil) }

// Serve tells that the port's serving endpoints may keep the flows that they have at its frontends.
func (s *Services) Serve(p *dataplane.Port) { s.set(p, p.Serving) }

func (s *Services) set(p *dataplane.Port, serving []netip.AddrPort) {
	if p.Name.Protocol != dataplane.UDP {
		return
	}
	for _, f := range p.Frontends {
		if f.Kind == dataplane.NodePort {
			s.nodePorts[nodePort{p.Family, f.Port}] = serving
		} else {
			s.addrs[netip.AddrPortFrom(f.Addr, f.Port)] = serving
		}
	}
}

// Empty tells that there is nothing to look for.
func (s *Services) Empty() bool { return len(s.addrs) == 0 && len(s.nodePorts) == 0 }

// has tells whether there is a frontend of the family.
func (s *Services) has(family dataplane.Family) bool {
	for a := range s.addrs {
		if a.Addr().Is4() == (family == dataplane.IPv4) {
			return true
		}
	}
	for n := range s.nodePorts {
		if n.family == family {
			return true
		}
	}
	return false
}

// Stale tells whether the flow goes to a frontend, and not to an endpoint that serves it: to one that has left, or untranslated to the
// frontend's own address, as flows do that began before there was an endpoint. Neither traffic policy nor topology matters: they choose
// for new flows. open tells which addresses node ports are open on; the same port number elsewhere is somebody else's.
func (s *Services) Stale(e Entry, open func(netip.Addr) bool) bool {
	serving, ok := s.addrs[e.Dst]
	if !ok {
		family := dataplane.IPv6
		if e.Dst.Addr().Is4() {
			family = dataplane.IPv4
		}
		serving, ok = s.nodePorts[nodePort{family, e.Dst.Port()}]
		ok = ok && open(e.Dst.Addr())
	}
	return ok && !slices.Contains(serving, e.Server)
}
