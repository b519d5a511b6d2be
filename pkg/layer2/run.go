package layer2

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// retryAfter is how long a socket or subscription that the kernel refused is left alone.
const retryAfter = time.Second

// run opens all sockets on its own goroutine: whoever locks that to a thread in another network namespace has an Announcer there.
func (a *Announcer) run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer a.closeAll()
	table := newLinks()
	first := true
	for ctx.Err() == nil {
		err := watch(ctx, table, func() {
			a.reconcile(table, &readers)
			if first {
				first = false
				readers.Go(func() { a.bursts.run(ctx) })
			}
		}, a.wake)
		if err == nil {
			break
		}
		a.log.Warn("the node's interfaces have to be read again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
	return nil
}

func (a *Announcer) reconcileSoon() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// reconcile makes the open endpoints, and the multicast groups they have joined, those that the interfaces and addresses call for.
// It is called by run only.
func (a *Announcer) reconcile(table *links, readers *sync.WaitGroup) {
	a.mu.RLock()
	first := !a.running
	a.mu.RUnlock()
	// Interfaces that are there when the process starts are no news to the neighbours.
	changed := a.reconcileEndpoints(table, first, readers)
	if a.reconcileGroups() || changed || first {
		a.mu.Lock()
		a.running = true
		a.mu.Unlock()
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
}

// reconcileEndpoints keeps a.mu only for a moment at a time: the kernel may take long to close a socket, and meanwhile the other interfaces
// have to answer. Nobody but run's goroutine changes a.endpoints.
func (a *Announcer) reconcileEndpoints(table *links, quiet bool, readers *sync.WaitGroup) (changed bool) {
	for _, e := range a.takeLinks(table) {
		e.close()
		changed = true
		a.log.Info("no longer announcing on interface", "interface", e.link.Load().name, "protocol", e.wire.String())
	}
	for index, l := range table.byIndex {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if l.unusableFor(family, a.exclude) != "" {
				continue
			}
			key := endpointKey{index, family}
			e := a.endpoints[key]
			if e != nil {
				old := e.link.Swap(&l)
				changed = changed || *old != l
				e.told = e.told && old.mac == l.mac && old.name == l.name
			} else {
				changed = true
				if e = a.open(key, l, readers); e == nil {
					continue
				}
				e.told = quiet && l.carrier
			}
			if !e.told && l.carrier {
				e.told = true
				a.appeared(key, &l)
			}
		}
	}
	return changed
}

// takeLinks takes the interfaces over from table, and out the endpoints that have lost theirs or are broken.
func (a *Announcer) takeLinks(table *links) (dead []*endpoint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links = maps.Clone(table.byIndex)
	a.ownMACs = map[mac]bool{}
	for _, l := range a.links {
		a.ownMACs[l.mac] = true
	}
	unusable := func(key endpointKey) bool {
		l, exists := a.links[key.index]
		return !exists || l.unusableFor(key.family, a.exclude) != ""
	}
	for key, e := range a.endpoints {
		if e.broken || unusable(key) {
			delete(a.endpoints, key)
			dead = append(dead, e)
		}
	}
	maps.DeleteFunc(a.failures, func(key endpointKey, _ error) bool { return unusable(key) })
	return dead
}

// open returns nil when the kernel refuses; then it is tried again later.
func (a *Announcer) open(key endpointKey, l link, readers *sync.WaitGroup) *endpoint {
	e, err := openEndpoint(l, key.family)
	a.mu.Lock()
	if err != nil {
		a.fail(key, err)
		a.mu.Unlock()
		return nil
	}
	a.listenFor(e)
	delete(a.failures, key)
	a.endpoints[key] = e
	a.mu.Unlock()
	readers.Go(func() { a.listen(key, e) })
	a.log.Info("announcing on interface", "interface", l.name, "protocol", e.wire.String())
	return e
}

// appeared tells the neighbours on an interface that is new, or has a new name or MAC address, which addresses are there.
func (a *Announcer) appeared(key endpointKey, l *link) {
	var turns []turn
	a.mu.RLock()
	for addr, v := range a.vips {
		if familyOf(addr) == key.family && v.selects(l) {
			turns = append(turns, turn{vip: v, onlyIndex: key.index})
		}
	}
	a.mu.RUnlock()
	a.bursts.start(turns...)
}

// reconcileGroups joins the solicited-node groups of all announced and probed addresses. The endpoints' groups belong to run's goroutine,
// so that joining thousands of them keeps nobody waiting for a.mu.
func (a *Announcer) reconcileGroups() (changed bool) {
	type job struct {
		key  endpointKey
		e    *endpoint
		want map[netip.Addr]bool
	}
	var jobs []job
	a.mu.RLock()
	for key, e := range a.endpoints {
		if e.groups == nil || e.broken {
			continue
		}
		want := map[netip.Addr]bool{}
		for addr, v := range a.vips {
			if addr.Is6() && v.selects(e.link.Load()) {
				want[solicitedNode(addr)] = true
			}
		}
		for addr := range a.probes {
			if addr.Is6() {
				want[solicitedNode(addr)] = true
			}
		}
		jobs = append(jobs, job{key, e, want})
	}
	a.mu.RUnlock()
	for _, j := range jobs {
		err := j.e.groups.sync(j.want)
		a.mu.Lock()
		changed = changed || (a.failures[j.key] != nil) != (err != nil)
		if err != nil {
			a.fail(j.key, fmt.Errorf("interface %s: %w", j.e.link.Load().name, err))
		} else {
			delete(a.failures, j.key)
		}
		a.mu.Unlock()
	}
	return changed
}

// fail notes why an endpoint does not work, and has that tried again later. The caller holds a.mu.
func (a *Announcer) fail(key endpointKey, err error) {
	if old := a.failures[key]; old == nil || old.Error() != err.Error() {
		a.log.Error("cannot announce on an interface; trying again", "error", err, "every", retryAfter)
	}
	a.failures[key] = err
	time.AfterFunc(retryAfter, a.reconcileSoon)
}

// listen answers what the endpoint hears until its socket is closed or fails; then it is opened again later.
func (a *Announcer) listen(key endpointKey, e *endpoint) {
	err := e.read(func(h heard) { a.hear(e, h) })
	if err == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	e.broken = true
	if a.endpoints[key] == e {
		a.fail(key, fmt.Errorf("interface %s: receive: %w", e.link.Load().name, err))
	}
}

func (a *Announcer) closeAll() {
	a.mu.Lock()
	open := a.endpoints
	a.endpoints = map[endpointKey]*endpoint{}
	a.running = false
	a.mu.Unlock()
	for _, e := range open {
		e.close()
	}
}

// announce makes one gratuitous announcement; false means that the turn is outdated.
func (a *Announcer) announce(t turn) bool {
	addr := t.vip.addr
	a.mu.RLock()
	current := a.vips[addr] == t.vip && (t.serial == 0 || t.serial == t.vip.serial)
	var on []*endpoint
	if t.onlyIndex != 0 {
		e := a.endpoints[endpointKey{t.onlyIndex, familyOf(addr)}]
		current = current && e != nil && t.vip.selects(e.link.Load())
		on = append(on, e)
	} else {
		on = a.endpointsOf(addr, t.vip.interfaces)
	}
	a.mu.RUnlock()
	if !current {
		return false
	}
	for _, e := range on {
		for _, frame := range e.wire.announce(addr, e.identity()) {
			if err := e.send(frame); err != nil {
				a.log.Debug("gratuitous announcement not sent", "address", addr, "interface", e.link.Load().name, "error", err)
				continue
			}
			t.vip.counters.gratuitous.Inc()
		}
	}
	return true
}

// endpointsOf returns where addr is announced with that selection of interfaces. The caller holds a.mu.
func (a *Announcer) endpointsOf(addr netip.Addr, interfaces []string) []*endpoint {
	var on []*endpoint
	for key, e := range a.endpoints {
		if key.family == familyOf(addr) && !e.broken && selects(interfaces, e.link.Load().name) {
			on = append(on, e)
		}
	}
	return on
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
