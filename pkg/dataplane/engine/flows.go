package engine

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/conntrack"
)

// flows knows which UDP flows have to be looked at because of what has changed in the kernel's rules.
type flows struct {
	applied map[string][]*dataplane.Port // the UDP ports that are in the kernel, by Service; those without are left out
	pending *conntrack.Services          // what to look at
}

func newFlows() *flows {
	return &flows{applied: map[string][]*dataplane.Port{}, pending: conntrack.New()}
}

// noteAll tells that all rules are in the kernel, and that nothing is known about what was there before.
func (f *flows) noteAll(m *dataplane.Model) {
	services := slices.AppendSeq(slices.Collect(maps.Keys(f.applied)), maps.Keys(m.Ports))
	f.note(m, services, func(_, _ *dataplane.Port) bool { return false })
}

// note tells that the rules for the changed Services are in the kernel. Those whose UDP ports are the same as before need not be looked at.
func (f *flows) note(m *dataplane.Model, changed []string, same func(p, q *dataplane.Port) bool) {
	var serve []*dataplane.Port
	for _, service := range changed {
		old := f.applied[service]
		var ports []*dataplane.Port
		for _, p := range m.Ports[service] {
			if p.Name.Protocol == dataplane.UDP {
				ports = append(ports, p)
			}
		}
		if slices.EqualFunc(old, ports, same) {
			continue
		}
		for _, p := range old {
			f.pending.Gone(p)
		}
		serve = append(serve, ports...)
		if f.applied[service] = ports; len(ports) == 0 {
			delete(f.applied, service)
		}
	}
	for _, p := range serve { // last, because a frontend may have gone from one Service to another
		f.pending.Serve(p)
	}
}

// sameFlows tells whether the ports let the same flows stay.
func sameFlows(p, q *dataplane.Port) bool {
	return p == q || p.Family == q.Family && slices.Equal(p.Frontends, q.Frontends) && slices.Equal(p.Serving, q.Serving)
}

// cleaned tells that all were looked at.
func (f *flows) cleaned() { f.pending = conntrack.New() }

// nodePortAt tells which addresses node ports are open on.
func nodePortAt(h dataplane.Host, local []netip.Addr) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		switch {
		case a.IsLoopback():
			return a.Is4() && h.LocalhostNodePorts
		case h.NodePortAddrs != nil:
			return slices.Contains(h.NodePortAddrs, a)
		default:
			return slices.Contains(local, a)
		}
	}
}
