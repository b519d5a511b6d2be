// Package layer2 makes the hosts of a local network send a load-balancer address's packets to this node: it answers ARP requests and
// neighbour solicitations for addresses that the kernel does not know to be the node's, announces them when they move, and finds out
// whether another host has them.
package layer2

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what an Announcer needs to know; its zero value works.
type Config struct {
	// Exclude matches names of interfaces that are never used; nil means DefaultExclude.
	Exclude []*regexp.Regexp
	// Interval is the time between gratuitous announcements of an address that does not move; 0 means none.
	Interval time.Duration
	// Ours tells the MAC addresses of other speakers: their packets about an address are no conflict. It has to be quick; nil means none.
	Ours       func(net.HardwareAddr) bool
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Announcement is an address that this node answers for.
type Announcement struct {
	Addr netip.Addr
	// Interfaces are the names of the interfaces on which it is answered; empty means all that are usable.
	Interfaces []string
	// Burst is increased by the caller each time neighbours have to be told that the address is here now.
	Burst uint64
}

// Status tells where an announced address is answered. Err is an *Error when that is nowhere, or not on every selected interface.
type Status struct {
	Addr       netip.Addr
	Interfaces []string
	Err        error
}

// Interface is a network interface on which addresses can be announced.
type Interface struct {
	Name string
	MAC  net.HardwareAddr
}

// Reason says why an address is not answered.
type Reason string

const (
	// ReasonNoInterface: none of the selected interfaces exists and is usable.
	ReasonNoInterface Reason = "NoUsableInterface"
	// ReasonSocketFailed: the kernel refused a socket or a multicast group on a selected interface.
	ReasonSocketFailed Reason = "SocketFailed"
)

// Error is a Reason with a message for people.
type Error struct {
	Reason  Reason
	Message string
}

func (e *Error) Error() string { return e.Message }

// Announcer answers ARP and neighbour discovery for a set of addresses. Its methods may be called at any time from any goroutine; nothing
// is answered before and after Run.
type Announcer struct {
	exclude   []*regexp.Regexp
	ours      func(net.HardwareAddr) bool
	log       *slog.Logger
	metrics   *metrics
	bursts    *bursts
	changed   chan struct{}
	conflicts chan Conflict
	wake      chan struct{} // has Run reconcile

	mu        sync.RWMutex
	vips      map[netip.Addr]*vip
	probes    map[netip.Addr][]*probe
	span      span      // of the IPv4 addresses among vips and probes
	nextProbe time.Time // when the next probe may be sent
	serial    uint64    // of the latest burst
	syncs     uint64
	running   bool
	links     map[int]link
	ownMACs   map[mac]bool
	endpoints map[endpointKey]*endpoint
	failures  map[endpointKey]error
}

// vip is an announced address.
type vip struct {
	addr       netip.Addr
	interfaces []string
	burst      uint64
	serial     uint64    // of its latest burst
	synced     uint64    // the latest Sync that named it
	defended   time.Time // when a conflict was last reported
	counters   counters
}

func (v *vip) selects(l *link) bool { return selects(v.interfaces, l.name) }

func selects(interfaces []string, name string) bool {
	return len(interfaces) == 0 || slices.Contains(interfaces, name)
}

// New returns an Announcer that does nothing until it is run.
func New(c Config) *Announcer {
	a := &Announcer{
		exclude:   c.Exclude,
		ours:      c.Ours,
		log:       c.Log,
		metrics:   newMetrics(c.Registerer),
		changed:   make(chan struct{}, 1),
		conflicts: make(chan Conflict, 64),
		wake:      make(chan struct{}, 1),
		vips:      map[netip.Addr]*vip{},
		probes:    map[netip.Addr][]*probe{},
		endpoints: map[endpointKey]*endpoint{},
		failures:  map[endpointKey]error{},
	}
	if a.exclude == nil {
		a.exclude = []*regexp.Regexp{DefaultExclude}
	}
	if a.ours == nil {
		a.ours = func(net.HardwareAddr) bool { return false }
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	a.bursts = newBursts(c.Interval, a.announce)
	return a
}

// Sync answers for exactly the given addresses, each of which appears once. Neighbours are told of an address whose Burst is larger than
// at the last Sync; one that is new with Burst 0 is taken up quietly, as after a restart of its owner.
func (a *Announcer) Sync(announcements []Announcement) []Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	var burst, repeat []turn
	groups := false // whether the solicited-node groups change
	var wanted span
	a.syncs++
	distinct := 0
	for _, n := range announcements {
		addr := n.Addr.Unmap()
		if addr.Is4() {
			wanted = wanted.with(addr)
		}
		v := a.vips[addr]
		if v == nil {
			v = &vip{addr: addr, interfaces: slices.Clone(n.Interfaces), counters: a.metrics.of(addr)}
			a.vips[addr] = v
			repeat = append(repeat, turn{vip: v})
			groups = groups || addr.Is6()
		} else if !slices.Equal(v.interfaces, n.Interfaces) {
			burst = append(burst, a.gained(v, n.Interfaces)...)
			v.interfaces = slices.Clone(n.Interfaces)
			groups = groups || addr.Is6()
		}
		if n.Burst > v.burst {
			a.serial++
			v.serial = a.serial
			burst = append(burst, turn{vip: v, serial: v.serial})
		}
		v.burst = n.Burst
		if v.synced != a.syncs {
			v.synced = a.syncs
			distinct++
		}
	}
	if distinct < len(a.vips) {
		for addr, v := range a.vips {
			if v.synced != a.syncs {
				delete(a.vips, addr)
				a.metrics.forget(addr)
				groups = groups || addr.Is6()
			}
		}
	}
	for addr := range a.probes {
		if addr.Is4() {
			wanted = wanted.with(addr)
		}
	}
	a.setSpan(wanted)
	if groups {
		a.reconcileSoon()
	}
	a.bursts.start(burst...)
	a.bursts.repeat(repeat...)
	return a.statuses(announcements)
}

// gained returns the announcements to be made on interfaces that v is answered on only when it selects those named.
func (a *Announcer) gained(v *vip, interfaces []string) []turn {
	var turns []turn
	for key, e := range a.endpoints {
		if l := e.link.Load(); key.family == familyOf(v.addr) && selects(interfaces, l.name) && !v.selects(l) {
			turns = append(turns, turn{vip: v, onlyIndex: key.index})
		}
	}
	return turns
}

// setSpan makes the sockets listen for s.
func (a *Announcer) setSpan(s span) {
	if s == a.span {
		return
	}
	a.span = s
	for _, e := range a.endpoints {
		a.listenFor(e)
	}
}

// listenFor makes e's socket receive packets about the addresses of interest.
func (a *Announcer) listenFor(e *endpoint) {
	if err := e.setSpan(a.span); err != nil && !e.broken {
		a.log.Error("addresses may not be answered", "interface", e.link.Load().name, "error", err)
	}
}

func (a *Announcer) statuses(announcements []Announcement) []Status {
	statuses := make([]Status, len(announcements))
	// Thousands of addresses have the same selection, and share what follows from it.
	type selection struct {
		family     int
		interfaces string
	}
	known := map[selection]Status{}
	for i, n := range announcements {
		key := selection{familyOf(n.Addr.Unmap()), strings.Join(n.Interfaces, "/")}
		s, ok := known[key]
		if !ok {
			s.Interfaces, s.Err = a.selected(key.family, n.Interfaces)
			known[key] = s
		}
		s.Addr = n.Addr
		statuses[i] = s
	}
	return statuses
}

// selected returns the names of the usable interfaces for a selection, and what is wrong with it.
func (a *Announcer) selected(family int, interfaces []string) ([]string, error) {
	var names, faults, refusals []string
	for index, l := range a.links {
		if !selects(interfaces, l.name) {
			continue
		}
		why := l.unusableFor(family, a.exclude)
		if e := a.endpoints[endpointKey{index, family}]; why == "" && e != nil && !e.broken && l.carrier {
			names = append(names, l.name)
		} else if why == "" && !l.carrier {
			why = "it has no carrier"
		}
		if err := a.failures[endpointKey{index, family}]; err != nil {
			faults = append(faults, err.Error())
		} else if why != "" && (len(interfaces) > 0 || l.unusable(a.exclude) == "") {
			refusals = append(refusals, "interface "+l.name+": "+why)
		}
	}
	slices.Sort(names)
	slices.Sort(faults)
	slices.Sort(refusals)
	switch {
	case len(faults) > 0:
		return names, &Error{ReasonSocketFailed, strings.Join(faults, "; ")}
	case len(names) > 0:
		return names, nil
	case len(refusals) > 0:
		return nil, &Error{ReasonNoInterface, "no usable interface: " + strings.Join(refusals, "; ")}
	case !a.running:
		return nil, &Error{ReasonNoInterface, "the interfaces of this node are not known yet"}
	case len(interfaces) > 0:
		return nil, &Error{ReasonNoInterface, "this node has no interface named " + strings.Join(interfaces, " or ")}
	}
	return nil, &Error{ReasonNoInterface, "this node has no interface that is up, speaks Ethernet, and is not excluded by name"}
}

// Interfaces returns the interfaces on which IPv4 or IPv6 addresses can be announced now, sorted by name. One without carrier is not
// among them: nobody can be reached through it.
func (a *Announcer) Interfaces() []Interface {
	a.mu.RLock()
	defer a.mu.RUnlock()
	byName := map[string]Interface{}
	for _, e := range a.endpoints {
		if l := e.link.Load(); l.carrier && !e.broken {
			byName[l.name] = Interface{Name: l.name, MAC: l.mac.hardware()}
		}
	}
	all := make([]Interface, 0, len(byName))
	for _, i := range byName {
		all = append(all, i)
	}
	slices.SortFunc(all, func(x, y Interface) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// Changed receives after the result of Interfaces, or what the next Sync would report, may have changed.
func (a *Announcer) Changed() <-chan struct{} { return a.changed }

// Conflicts receives packets of other hosts that claim an announced address, at most one in 10 s for each address.
func (a *Announcer) Conflicts() <-chan Conflict { return a.conflicts }

// Run works until ctx is done. It returns an error at once when the process lacks the privilege.
func (a *Announcer) Run(ctx context.Context) error {
	if err := checkPrivileges(); err != nil {
		return err
	}
	return a.run(ctx)
}
