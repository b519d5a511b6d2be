package layer2

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// RFC 5227 probes for 5 s and RFC 4862 for 1 s, to let hosts answer that are slow to wake or behind slow bridges. An address that waits is
// a Service that waits, so three probes in a fraction of that have to do; what they miss shows as a conflict later.
const (
	probeCount = 3
	probeGap   = 100 * time.Millisecond
	// probeLate is how late this process may notice that nobody has answered. If it is later, it has had too little CPU time to be sure
	// that it would have noticed an answer, and asks again; but no more than probeLimit times in all.
	probeLate  = probeGap / 2
	probeLimit = 20
)

// Conflict is another host that holds an address.
type Conflict struct {
	Addr      netip.Addr
	Interface string
	MAC       net.HardwareAddr
}

// probe is one call of Probe that is under way.
type probe struct {
	addr       netip.Addr
	interfaces []string
	ours       func(net.HardwareAddr) bool
	found      chan Conflict
}

// hear takes a packet of another host whose sender claims the address or wants it.
func (p *probe) hear(l *link, h heard) {
	if !selects(p.interfaces, l.name) || p.ours(h.sender.hardware()) {
		return
	}
	select {
	case p.found <- Conflict{Addr: p.addr, Interface: l.name, MAC: h.sender.hardware()}:
	default:
	}
}

// Probe asks all selected interfaces at once whether another host holds addr, by ARP probes (RFC 5227 2.1) or duplicate address detection
// (RFC 4862 5.4), and returns the first that does, nil when none answers within 300 ms, and 0.1 ms for
// each probe that is under way. (It takes longer when this process gets too little CPU time.) A host that probes for the address at the same
// time counts as well; one whose MAC address is ours does not. The error is an *Error when there is nowhere to ask.
func (a *Announcer) Probe(ctx context.Context, addr netip.Addr, interfaces []string, ours func(net.HardwareAddr) bool) (*Conflict, error) {
	addr = addr.Unmap()
	if ours == nil {
		ours = a.ours
	}
	p := &probe{addr: addr, interfaces: interfaces, ours: ours, found: make(chan Conflict, 1)}
	a.startProbe(p)
	defer a.endProbe(p)
	for silences, sent := 0, 0; silences < probeCount && sent < probeLimit; sent++ {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(a.probeSlot()):
		}
		if err := a.sendProbe(p); err != nil {
			return nil, err
		}
		begin := time.Now()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case c := <-p.found:
			return &c, nil
		case <-time.After(probeGap):
		}
		if time.Since(begin) < probeGap+probeLate {
			silences++
		}
	}
	select {
	case c := <-p.found:
		return &c, nil
	default:
		return nil, nil
	}
}

func (a *Announcer) startProbe(p *probe) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.probes[p.addr] = append(a.probes[p.addr], p)
	if p.addr.Is4() {
		a.setSpan(a.span.with(p.addr))
	} else {
		a.reconcileSoon()
	}
}

func (a *Announcer) endProbe(p *probe) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.probes[p.addr] = slices.DeleteFunc(a.probes[p.addr], func(q *probe) bool { return q == p })
	if len(a.probes[p.addr]) == 0 {
		delete(a.probes, p.addr)
	}
	// The solicited-node group is left at the next occasion: most likely the address is going to be announced.
}

// probeSlot returns how long to wait before a probe is sent: like announcements, thousands of probes are paced.
func (a *Announcer) probeSlot() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.nextProbe.Before(now) {
		a.nextProbe = now
	}
	wait := a.nextProbe.Sub(now)
	a.nextProbe = a.nextProbe.Add(pacePause / paceBatch)
	return wait
}

// sendProbe succeeds when the probe went out on at least one interface.
func (a *Announcer) sendProbe(p *probe) error {
	a.mu.RLock()
	names, err := a.selected(familyOf(p.addr), p.interfaces)
	var on []*endpoint
	if len(names) > 0 {
		on = a.endpointsOf(p.addr, names)
	}
	a.mu.RUnlock()
	for _, e := range on {
		if failure := e.send(e.wire.probe(p.addr, e.identity())); failure != nil {
			err = &Error{ReasonSocketFailed, "interface " + e.link.Load().name + ": send probe: " + failure.Error()}
			on = slices.DeleteFunc(slices.Clone(on), func(other *endpoint) bool { return other == e })
		}
	}
	if len(on) == 0 {
		return err
	}
	return nil
}
