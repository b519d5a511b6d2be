package speaker

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/membership"
)

// hub is the network between speakers: who reaches whom, how long packets take, and how late each notices that another is gone.
type hub struct {
	mu    sync.Mutex
	nodes map[string]*fakeMembers
	side  map[string]int // of a partition
	// delay is how long a packet takes; detect how long it takes `by` to notice that `of` is gone.
	delay  func(from, to string) time.Duration
	detect func(by, of string) time.Duration
	// lose tells whether the first copy of a broadcast is lost; gossip brings it later.
	lose func(from, to string) bool
	// settle is how long a speaker that starts takes to meet the others.
	settle time.Duration
}

// set changes the network while it is in use.
func (h *hub) set(change func(*hub)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func newHub() *hub {
	return &hub{
		nodes:  map[string]*fakeMembers{},
		side:   map[string]int{},
		delay:  func(string, string) time.Duration { return time.Millisecond },
		detect: func(string, string) time.Duration { return 400 * time.Millisecond },
		lose:   func(string, string) bool { return false },
		settle: 20 * time.Millisecond,
	}
}

// fakeMembers is one speaker's membership.
type fakeMembers struct {
	hub     *hub
	self    membership.Member
	replica membership.Replica
	changed chan struct{}
	settled chan struct{}
	view    map[string]membership.Member
	known   map[string]bool
	down    bool
}

// join starts a speaker's membership: it exchanges its state with all that it reaches.
func (h *hub) join(name string, mac net.HardwareAddr, replica membership.Replica) *fakeMembers {
	m := &fakeMembers{
		hub: h, replica: replica, changed: make(chan struct{}, 1), settled: make(chan struct{}),
		self: membership.Member{Name: name},
	}
	h.mu.Lock()
	m.view = map[string]membership.Member{name: m.self}
	m.known = map[string]bool{name: true}
	if old := h.nodes[name]; old != nil {
		old.down = true
	}
	h.nodes[name] = m
	h.mu.Unlock()
	time.AfterFunc(h.settle, func() {
		for _, other := range h.reachable(m) {
			h.exchange(m, other)
		}
		close(m.settled)
	})
	return m
}

func (h *hub) reachable(m *fakeMembers) []*fakeMembers {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*fakeMembers
	for _, name := range slices.Sorted(maps.Keys(h.nodes)) {
		if other := h.nodes[name]; other != m && !other.down && !m.down && h.side[name] == h.side[m.self.Name] {
			all = append(all, other)
		}
	}
	return all
}

// exchange merges the states of two members both ways; then each counts the other as live.
func (h *hub) exchange(a, b *fakeMembers) {
	fromA, fromB := a.replica.State(), b.replica.State()
	a.replica.Merge(fromB)
	b.replica.Merge(fromA)
	h.mu.Lock()
	defer h.mu.Unlock()
	a.view[b.self.Name], b.view[a.self.Name] = b.self, a.self
	a.known[b.self.Name], b.known[a.self.Name] = true, true
	a.notify()
	b.notify()
}

func (m *fakeMembers) notify() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// forget has `by` notice that `of` is gone.
func (h *hub) forget(by, of *fakeMembers, left bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.nodes[of.self.Name] != of || !of.down && h.side[by.self.Name] == h.side[of.self.Name] {
		return
	}
	delete(by.view, of.self.Name)
	if left {
		delete(by.known, of.self.Name)
	}
	by.notify()
}

// die takes a speaker off the network at once.
func (h *hub) die(name string) {
	h.mu.Lock()
	m := h.nodes[name]
	h.mu.Unlock()
	others := h.reachable(m)
	h.mu.Lock()
	m.down = true
	h.mu.Unlock()
	for _, other := range others {
		h.mu.Lock()
		after := h.detect(other.self.Name, name)
		h.mu.Unlock()
		time.AfterFunc(after, func() { h.forget(other, m, false) })
	}
}

// split puts the named speakers on a side of their own.
func (h *hub) split(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		h.side[name] = 1
	}
	for _, a := range h.nodes {
		for _, b := range h.nodes {
			if h.side[a.self.Name] != h.side[b.self.Name] {
				time.AfterFunc(h.detect(a.self.Name, b.self.Name), func() { h.forget(a, b, false) })
			}
		}
	}
}

// heal ends the partition; the speakers find each other pair by pair.
func (h *hub) heal() {
	h.mu.Lock()
	clear(h.side)
	names := slices.Sorted(maps.Keys(h.nodes))
	h.mu.Unlock()
	wait := 300 * time.Millisecond
	for i, a := range names {
		for _, b := range names[i+1:] {
			wait += 7 * time.Millisecond
			time.AfterFunc(wait, func() { h.exchange(h.nodes[a], h.nodes[b]) })
		}
	}
}

func (m *fakeMembers) Members() []membership.Member {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.view), func(a, b membership.Member) int { return strings.Compare(a.Name, b.Name) })
}

// PowerLost are those that went without a goodbye.
func (m *fakeMembers) PowerLost() []string {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.known)), func(name string) bool {
		_, live := m.view[name]
		return live
	})
}

func (m *fakeMembers) Changed() <-chan struct{} { return m.changed }
func (m *fakeMembers) Settled() <-chan struct{} { return m.settled }

func (m *fakeMembers) Quorum() bool {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	return 2*len(m.view) > len(m.known)
}

// send calls f for each live member that the packet reaches.
func (m *fakeMembers) send(extra time.Duration, f func(*fakeMembers)) {
	for _, to := range m.hub.reachable(m) {
		m.hub.mu.Lock()
		wait := extra + m.hub.delay(m.self.Name, to.self.Name)
		lost := extra == 0 && m.hub.lose(m.self.Name, to.self.Name)
		m.hub.mu.Unlock()
		if lost {
			continue
		}
		time.AfterFunc(wait, func() {
			m.hub.mu.Lock()
			_, listening := to.view[m.self.Name]
			arrives := listening && !to.down && m.hub.side[to.self.Name] == m.hub.side[m.self.Name]
			m.hub.mu.Unlock()
			if arrives {
				f(to)
			}
		})
	}
}

func (m *fakeMembers) Broadcast(b []byte) {
	b = slices.Clone(b)
	m.send(0, func(to *fakeMembers) { to.replica.Merge(b) })
	m.send(150*time.Millisecond, func(to *fakeMembers) { to.replica.Merge(b) })
}

func (m *fakeMembers) Update(leaving bool, macs []net.HardwareAddr, interfaces []string) {
	m.hub.mu.Lock()
	m.self.Leaving, m.self.MACs, m.self.Interfaces = leaving, slices.Clone(macs), slices.Clone(interfaces)
	m.view[m.self.Name] = m.self
	profile := m.self
	m.notify()
	m.hub.mu.Unlock()
	told := func(to *fakeMembers) {
		m.hub.mu.Lock()
		defer m.hub.mu.Unlock()
		to.view[profile.Name] = profile
		to.notify()
	}
	m.send(0, told)
	m.send(150*time.Millisecond, told)
}

func (m *fakeMembers) Leave(context.Context) error {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	if m.down {
		return nil
	}
	m.down = true
	for _, other := range m.hub.nodes {
		if other != m && !other.down {
			time.AfterFunc(time.Millisecond, func() { m.hub.forget(other, m, true) })
		}
	}
	return nil
}
