package engine

import (
	"net/netip"
	"slices"
)

// gate knows for which load-balancer addresses the rules are in the kernel. It has to be guarded by the engine's lock.
type gate struct {
	claims map[string][]claim   // by Service
	addrs  map[netip.Addr]tally // what the claims add up to
	fresh  map[string]struct{}  // the Services with claims that await the next sync
	taken  map[string]struct{}  // those that the sync in progress is about
	news   chan struct{}
}

type claim struct {
	addr    netip.Addr
	applied bool
}

// tally counts the Services that have an address.
type tally struct{ all, applied int }

func newGate() *gate {
	return &gate{claims: map[string][]claim{}, addrs: map[netip.Addr]tally{}, fresh: map[string]struct{}{}, taken: map[string]struct{}{}, news: make(chan struct{}, 1)}
}

func (g *gate) carries(addr netip.Addr) bool {
	t := g.addrs[addr]
	return t.all > 0 && t.applied == t.all
}

// set tells which addresses a Service has. Those that it had before stay as they were.
func (g *gate) set(service string, addrs []netip.Addr) {
	claims := make([]claim, 0, len(addrs))
	for _, a := range addrs {
		if !slices.ContainsFunc(claims, func(c claim) bool { return c.addr == a }) {
			claims = append(claims, claim{a, slices.Contains(g.claims[service], claim{a, true})})
		}
	}
	g.replace(service, claims)
}

// replace is the only place at which claims change.
func (g *gate) replace(service string, claims []claim) {
	old := g.claims[service]
	if slices.Equal(old, claims) {
		return
	}
	g.count(old, -1)
	g.count(claims, 1)
	if g.claims[service] = claims; len(claims) == 0 {
		delete(g.claims, service)
	}
	if slices.ContainsFunc(claims, func(c claim) bool { return !c.applied }) {
		g.fresh[service] = struct{}{}
	} else {
		delete(g.fresh, service)
	}
	select {
	case g.news <- struct{}{}:
	default:
	}
}

func (g *gate) count(claims []claim, by int) {
	for _, c := range claims {
		t := g.addrs[c.addr]
		t.all += by
		if c.applied {
			t.applied += by
		}
		if g.addrs[c.addr] = t; t.all == 0 {
			delete(g.addrs, c.addr)
		}
	}
}

// mark replaces the applied state of those claims of a Service for which which is true.
func (g *gate) mark(service string, applied bool, which func(netip.Addr) bool) {
	claims := slices.Clone(g.claims[service])
	for i, c := range claims {
		if which(c.addr) {
			claims[i].applied = applied
		}
	}
	g.replace(service, claims)
}

func every(netip.Addr) bool { return true }

// renew makes the addresses wait for the next sync, whatever was applied.
func (g *gate) renew(which func(netip.Addr) bool) {
	for service := range g.claims {
		g.mark(service, false, which)
	}
}

// take tells that a sync begins, with all that was set so far.
func (g *gate) take() {
	g.taken, g.fresh = g.fresh, map[string]struct{}{}
}

// succeeded tells that what was taken is in the kernel. A Service that was given an address meanwhile waits for the next sync.
func (g *gate) succeeded() {
	for service := range g.taken {
		if _, again := g.fresh[service]; !again {
			g.mark(service, true, every)
		}
	}
	g.taken = map[string]struct{}{}
}

// failed tells that what was taken is not in the kernel, and neither are the changes of the Services.
func (g *gate) failed(changed []string) {
	for service := range g.taken {
		if len(g.claims[service]) > 0 {
			g.fresh[service] = struct{}{}
		}
	}
	g.taken = map[string]struct{}{}
	for _, service := range changed {
		g.mark(service, false, every)
	}
}
