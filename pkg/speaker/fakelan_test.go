package speaker

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
)

// lan is the network to which addresses are announced.
type lan struct {
	mu        sync.Mutex
	nics      map[string]*fakeLayer2
	strangers map[netip.Addr]net.HardwareAddr
	// neighbour is the client's table: who announced an address last.
	neighbour map[netip.Addr]string
	bursts    map[netip.Addr]int
	history   []moment
}

// moment is who answered for an address from then on.
type moment struct {
	at   time.Time
	addr netip.Addr
	by   []string
}

func newLAN() *lan {
	return &lan{nics: map[string]*fakeLayer2{}, strangers: map[netip.Addr]net.HardwareAddr{}, neighbour: map[netip.Addr]string{}, bursts: map[netip.Addr]int{}}
}

// answering returns who answers for the address. The caller holds l.mu.
func (l *lan) answering(a netip.Addr) []string {
	var names []string
	for name, nic := range l.nics {
		if _, ok := nic.vips[a]; ok && nic.up() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fakeLayer2 is one node's layer 2. It keeps the contract of layer2.Announcer.
type fakeLayer2 struct {
	lan       *lan
	name      string
	mac       net.HardwareAddr
	vips      map[netip.Addr]layer2.Announcement
	nics      []layer2.Interface
	probing   map[netip.Addr]int
	dead      bool
	syncs     int
	changed   chan struct{}
	conflicts chan layer2.Conflict
}

func (l *lan) attach(name string, mac net.HardwareAddr) *fakeLayer2 {
	f := &fakeLayer2{
		lan: l, name: name, mac: mac, vips: map[netip.Addr]layer2.Announcement{}, probing: map[netip.Addr]int{},
		nics:    []layer2.Interface{{Name: "eth0", MAC: mac}},
		changed: make(chan struct{}, 1), conflicts: make(chan layer2.Conflict, 1),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nics[name] = f
	return f
}

// times is how often Sync was called.
func (f *fakeLayer2) times() int {
	f.lan.mu.Lock()
	defer f.lan.mu.Unlock()
	return f.syncs
}

// up tells whether packets of the node reach the network. The caller holds lan.mu.
func (f *fakeLayer2) up() bool { return !f.dead && len(f.nics) > 0 }

func (f *fakeLayer2) Sync(announcements []layer2.Announcement) []layer2.Status {
	f.lan.mu.Lock()
	defer f.lan.mu.Unlock()
	f.syncs++
	before := f.vips
	f.vips = map[netip.Addr]layer2.Announcement{}
	var statuses []layer2.Status
	for _, n := range announcements {
		f.vips[n.Addr] = n
		statuses = append(statuses, layer2.Status{Addr: n.Addr, Interfaces: []string{"eth0"}})
		if n.Burst > before[n.Addr].Burst {
			f.lan.bursts[n.Addr]++
			f.burst(n)
		}
	}
	for a := range before {
		if _, kept := f.vips[a]; !kept {
			f.lan.note(a)
		}
	}
	for a := range f.vips {
		if _, had := before[a]; !had {
			f.lan.note(a)
		}
	}
	return statuses
}

func (l *lan) note(a netip.Addr) {
	l.history = append(l.history, moment{time.Now(), a, l.answering(a)})
}

// burst announces the address in several rounds, as long as it is still announced for that reason.
func (f *fakeLayer2) burst(n layer2.Announcement) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond} {
		time.AfterFunc(after, func() {
			f.lan.mu.Lock()
			defer f.lan.mu.Unlock()
			if f.lan.nics[f.name] == f && f.up() && f.vips[n.Addr].Burst == n.Burst {
				f.lan.neighbour[n.Addr] = f.name
			}
		})
	}
}

func (f *fakeLayer2) Probe(ctx context.Context, a netip.Addr, _ []string, ours func(net.HardwareAddr) bool) (*layer2.Conflict, error) {
	count := func(n int) {
		f.lan.mu.Lock()
		defer f.lan.mu.Unlock()
		f.probing[a] += n
	}
	count(1)
	defer count(-1)
	for range 3 {
		f.lan.mu.Lock()
		answers := []net.HardwareAddr{}
		if mac := f.lan.strangers[a]; mac != nil {
			answers = append(answers, mac)
		}
		for name, nic := range f.lan.nics {
			if name != f.name && nic.up() && (nic.probing[a] > 0 || slices.Contains(f.lan.answering(a), name)) {
				answers = append(answers, nic.mac)
			}
		}
		f.lan.mu.Unlock()
		for _, mac := range answers {
			if !ours(mac) {
				return &layer2.Conflict{Addr: a, Interface: "eth0", MAC: mac}, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil, nil
}

func (f *fakeLayer2) Interfaces() []layer2.Interface {
	f.lan.mu.Lock()
	defer f.lan.mu.Unlock()
	return slices.Clone(f.nics)
}

func (f *fakeLayer2) Changed() <-chan struct{}          { return f.changed }
func (f *fakeLayer2) Conflicts() <-chan layer2.Conflict { return f.conflicts }

// carrier plugs or unplugs the node's interfaces.
func (f *fakeLayer2) carrier(names ...string) {
	f.lan.mu.Lock()
	f.nics = nil
	for _, name := range names {
		f.nics = append(f.nics, layer2.Interface{Name: name, MAC: f.mac})
	}
	for a := range f.vips {
		f.lan.note(a)
	}
	f.lan.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// fakeReporter remembers what users were told, and shows it to the inventory as the API would.
type fakeReporter struct {
	mu         sync.Mutex
	conditions map[string]string
	events     []string
	changed    func(service string, reason announce.Reason, complaint string)
	writes     int // of conditions
}

func (r *fakeReporter) Complain(service string, reason announce.Reason, message string, amends bool) {
	r.set(service, reason, message)
	if !amends {
		r.Warn(service, reason, message)
	}
}

func (r *fakeReporter) Withdraw(service string) { r.set(service, "", "") }

func (r *fakeReporter) Warn(service string, reason announce.Reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, service+" "+string(reason)+": "+message)
}

func (r *fakeReporter) set(service string, reason announce.Reason, message string) {
	r.mu.Lock()
	r.writes++
	r.conditions[service] = message
	r.mu.Unlock()
	time.AfterFunc(5*time.Millisecond, func() { r.changed(service, reason, message) })
}

// counts returns how many conditions were written or taken back, and how many Events made.
func (r *fakeReporter) counts() (writes, events int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes, len(r.events)
}

func (r *fakeReporter) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}
