package dataplane

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// claim is a place that only one port can have.
type claim struct {
	addr     netip.Addr // the zero Addr for a node port
	port     uint16
	protocol Protocol
	family   Family
}

// Reason says why a Service doesn't get a frontend.
type Reason string

// The reasons.
const (
	AddressInUse  Reason = "AddressInUse"  // an older Service has the address with this port
	NodePortInUse Reason = "NodePortInUse" // an older Service has the node port
)

// Conflict is a place that a Service asks for and doesn't get.
type Conflict struct {
	Service  string     // namespace/name
	Addr     netip.Addr // the zero Addr for a node port
	Port     uint16
	Protocol Protocol
	Holder   string // the Service that has it, namespace/name
	Reason   Reason
}

// String says what to do about it.
func (c Conflict) String() string {
	where, mend := netip.AddrPortFrom(c.Addr, c.Port).String(), "give one of them another address or port"
	if c.Reason == NodePortInUse {
		where, mend = fmt.Sprintf("node port %d", c.Port), "change spec.ports[].nodePort of one of them"
	}
	return fmt.Sprintf("%s %s of Service %s belongs to the older Service %s: %s", c.Protocol, where, c.Service, c.Holder, mend)
}

// claimable returns the frontends that a port asks for, sorted by kind, address and port, none twice: of two kinds with the same address the
// load balancer's wins over the external address, because it is the one that source ranges restrict.
func (t *Tracker) claimable(s *Service, family Family, port ServicePort) []Frontend {
	clusterIP, ok := s.clusterIP(family)
	if !ok {
		return nil
	}
	out := make([]Frontend, 0, 2+len(s.LoadBalancerIPs)+len(s.ExternalIPs))
	add := func(kind Kind, addr netip.Addr) {
		if familyOf(addr) == family && !slices.ContainsFunc(out, func(f Frontend) bool { return f.Addr == addr }) {
			out = append(out, Frontend{kind, addr, port.Port})
		}
	}
	if t.cfg.Mode == Full {
		add(ClusterIP, clusterIP)
	}
	for _, addr := range s.LoadBalancerIPs {
		if t.carries(s, addr) {
			add(LoadBalancerIP, addr)
		}
	}
	if t.cfg.Mode == Full {
		for _, addr := range s.ExternalIPs {
			add(ExternalIP, addr)
		}
		if port.NodePort != 0 {
			out = append(out, Frontend{Kind: NodePort, Port: port.NodePort})
		}
	}
	slices.SortFunc(out, func(a, b Frontend) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// carries tells whether this node carries the Service's load-balancer address.
func (t *Tracker) carries(s *Service, addr netip.Addr) bool {
	switch t.cfg.Mode {
	case Full:
		return true
	case LoadBalancer:
		return (s.Class == "" || s.Class == t.cfg.Class) && t.served(addr)
	}
	return false
}

// reclaim brings the claims of a Service up to date. Others that win or lose by it become dirty.
func (t *Tracker) reclaim(s *service) {
	var claims []claim
	if s.spec != nil {
		for _, family := range families {
			for _, port := range s.spec.Ports {
				for _, f := range t.claimable(s.spec, family, port) {
					claims = append(claims, claim{f.Addr, f.Port, port.Protocol, family})
				}
			}
		}
		if slices.Equal(claims, s.claims) && s.created.Equal(s.spec.Created) {
			return
		}
	}
	for _, c := range s.claims {
		t.release(c, s)
	}
	s.claims = claims
	if s.spec != nil {
		s.created = s.spec.Created
	}
	for _, c := range s.claims {
		t.take(c, s)
	}
}

func (t *Tracker) take(c claim, s *service) {
	holder := t.holders[c]
	if holder == nil {
		t.holders[c] = s
		return
	}
	all := t.contested[c]
	if all == nil {
		all = []*service{holder}
	}
	i, _ := slices.BinarySearchFunc(all, s, byAge)
	t.contested[c] = slices.Insert(all, i, s)
	if i == 0 {
		t.holders[c] = s
		t.touch(holder)
	}
}

func (t *Tracker) release(c claim, s *service) {
	all := slices.DeleteFunc(t.contested[c], func(o *service) bool { return o == s })
	switch len(all) {
	case 0:
		delete(t.holders, c)
		return
	case 1:
		delete(t.contested, c)
	default:
		t.contested[c] = all
	}
	if t.holders[c] == s {
		t.holders[c] = all[0]
		t.touch(all[0])
	}
}

func byAge(a, b *service) int {
	return cmp.Or(a.created.Compare(b.created), strings.Compare(a.key, b.key))
}

// Conflicts returns what Services ask for and don't get, as of the last Update, sorted by Service and place.
func (t *Tracker) Conflicts() (out []Conflict) {
	for place, all := range t.contested {
		reason := AddressInUse
		if !place.addr.IsValid() {
			reason = NodePortInUse
		}
		for _, s := range all[1:] {
			out = append(out, Conflict{s.key, place.addr, place.port, place.protocol, all[0].key, reason})
		}
	}
	slices.SortFunc(out, func(a, b Conflict) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.Protocol, b.Protocol), strings.Compare(a.Holder, b.Holder))
	})
	return slices.Compact(out) // a node port of both families is one
}
