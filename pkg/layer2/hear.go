package layer2

import (
	"net/netip"
	"slices"
	"time"
)

// defendInterval is the time between two defences of an address against another host (RFC 5227 2.4, DEFEND_INTERVAL).
const defendInterval = 10 * time.Second

// hear does what a packet calls for: answer it, tell a probe about it, or report a conflict.
func (a *Announcer) hear(e *endpoint, h heard) {
	l := e.link.Load()
	a.mu.RLock()
	asked, claimed := a.announcedOn(h.asks, l), a.announcedOn(h.claims, l)
	own := a.ownMACs[h.sender]
	var probes []*probe
	if !own {
		probes = slices.Concat(a.probes[h.claims], a.probes[h.wants])
	}
	a.mu.RUnlock()

	if asked != nil {
		asked.counters.requests.Inc()
		if err := e.send(e.wire.answer(h, e.identity())); err != nil {
			a.log.Warn("answer not sent", "address", h.asks, "interface", l.name, "error", err)
		} else {
			asked.counters.responses.Inc()
		}
	}
	for _, p := range probes {
		p.hear(l, h)
	}
	if claimed != nil && !own && !a.ours(h.sender.hardware()) {
		a.conflict(claimed, l, h)
	}
}

// announcedOn returns the announced address, or nil when it is not announced on l. The caller holds a.mu.
func (a *Announcer) announcedOn(addr netip.Addr, l *link) *vip {
	if v := a.vips[addr]; v != nil && v.selects(l) {
		return v
	}
	return nil
}

// conflict reports that another host claims v, and announces v once against it.
func (a *Announcer) conflict(v *vip, l *link, h heard) {
	v.counters.conflicts.Inc()
	now := time.Now()
	a.mu.Lock()
	tooSoon := now.Sub(v.defended) < defendInterval && !v.defended.IsZero()
	if !tooSoon {
		v.defended = now
	}
	a.mu.Unlock()
	if tooSoon {
		return
	}
	c := Conflict{Addr: v.addr, Interface: l.name, MAC: h.sender.hardware()}
	a.log.Warn("another host claims an address that this node announces; take the address from that host or out of the pool",
		"address", c.Addr, "mac", c.MAC.String(), "interface", c.Interface)
	a.announce(turn{vip: v, onlyIndex: l.index})
	select {
	case a.conflicts <- c:
	default:
		a.log.Warn("conflict not reported: nobody reads the reports", "address", c.Addr)
	}
}
