// Package speaker is the speaker's reconciler: it watches the API and the other speakers, decides with package announce which addresses
// this node is to announce, and has package layer2 do it.
package speaker

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
	"github.com/steelyard-lb/steelyard/pkg/membership"
)

// Members is what the speaker needs of the other speakers; membership.List is one.
type Members interface {
	Members() []membership.Member
	PowerLost() []string
	Changed() <-chan struct{}
	Settled() <-chan struct{}
	Quorum() bool
	Broadcast([]byte)
	Update(leaving bool, macs []net.HardwareAddr, interfaces []string)
	Leave(context.Context) error
}

// Layer2 is what the speaker needs of the network; layer2.Announcer is one.
type Layer2 interface {
	Sync([]layer2.Announcement) []layer2.Status
	Probe(ctx context.Context, addr netip.Addr, interfaces []string, ours func(net.HardwareAddr) bool) (*layer2.Conflict, error)
	Interfaces() []layer2.Interface
	Changed() <-chan struct{}
	Conflicts() <-chan layer2.Conflict
}

// Reporter tells users about Services. Its methods do not wait for the API.
type Reporter interface {
	// Complain sets the Service's condition steelyard.io/Announced to False with this reason and message. amends tells that it is that
	// with another message, and no news; otherwise an Event is made of it, too.
	Complain(service string, reason announce.Reason, message string, amends bool)
	// Withdraw takes the condition back.
	Withdraw(service string)
	// Warn makes an Event.
	Warn(service string, reason announce.Reason, message string)
}

// Config is what a Speaker needs.
type Config struct {
	Node       string
	Layer2     Layer2
	Dataplane  Dataplane // nil: another program carries the traffic, and the speaker announces without asking
	Reporter   Reporter
	Shown      Layer2Reporter  // nil: nobody wants to know what is announced
	Synced     <-chan struct{} // closed once the inventory holds all objects of the API
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Speaker decides what this node announces.
type Speaker struct {
	*inventory
	config  Config
	log     *slog.Logger
	metrics *metrics
	replica *replica
	members Members
	woken   chan struct{}
	macs    macs
	probes  *probes

	// The rest belongs to the loop; metrics read it with the inventory's lock.
	active    bool // it knows enough to decide
	leaving   bool
	late      bool // it has told the others that it is not ready
	started   time.Time
	view      sight
	met       bool                 // it has ever seen another speaker
	quorumAt  time.Time            // when the present quorum counts; zero without one
	reunited  time.Time            // when a member came, or came back
	lostAt    map[string]time.Time // when those that are not live any more were lost
	down      []string             // nodes that lost power
	cutOff    bool                 // it has had no interface, and has not met the others since
	aloneAt   time.Time            // when it settles that it is alone
	held      map[netip.Addr]*hold
	bursts    uint64
	awaiting  map[netip.Addr]awaited    // groups whose elected speaker has yet to claim them, by their first address
	rivals    map[netip.Addr]rivalClaim // addresses that another speaker claims too
	heard     map[netip.Addr]time.Time  // addresses that were heard to belong to a speaker that is not live; when
	lost      map[netip.Addr]time.Time  // addresses that another speaker took lately
	due       map[netip.Addr]time.Time  // when to look at an address again
	gated     map[netip.Addr]struct{}   // addresses that this node could announce once it has rules for them
	unowned   map[netip.Addr]unowned    // addresses that nobody may announce
	takeovers map[netip.Addr]uint32     // how often this node was elected for an address and had not announced it before
	expected  map[string]int            // addresses that another speaker is about to claim: the sums of awaiting
	outbox    []announce.Claim          // to be broadcast
	unsynced  bool                      // layer 2 has to be told
	news      []news                    // to be logged
	toProbe   []probeOrder              // to be started
	faults    map[string][]netip.Addr   // what layer 2 complained about last
	shown     map[string]struct{}       // Services that this node was said to answer for
	toShow    map[string]*service       // Services of which that may have changed
	buried    map[string]bool           // lost nodes that nothing is shown of any more
	kept      []string                  // the only nodes that anything is shown of
	nextSweep time.Time
}

// hold is an address that this speaker answers for, or probes in order to.
type hold struct {
	claim      announce.Claim // this speaker's latest
	taken      time.Time      // when it was elected; zero after a restart
	interfaces []string
	burst      uint64
	announced  time.Time // when the latest burst began
	// conflict is the stranger that answered for the address.
	conflict *layer2.Conflict
	// probing: a probe is under way; after one that gave no clearance, the next is not to start before retry.
	probing bool
	retry   time.Time
	// suspected: a probe was answered, perhaps by a stranger.
	suspected bool
	// uncarried is since when this node's rules for it are missing; zero while they are there.
	uncarried time.Time
	// unfit is since when this node should not announce it; zero while it should.
	unfit time.Time
}

func (h *hold) answers() bool { return !h.claim.Probing }

type rivalClaim struct {
	name  string
	until time.Time
}

// New returns a Speaker that does nothing until it is run; it takes objects of the API and, by Replica, claims before that.
func New(c Config) *Speaker {
	s := &Speaker{
		config:    c,
		log:       c.Log,
		woken:     make(chan struct{}, 1),
		held:      map[netip.Addr]*hold{},
		awaiting:  map[netip.Addr]awaited{},
		rivals:    map[netip.Addr]rivalClaim{},
		heard:     map[netip.Addr]time.Time{},
		lost:      map[netip.Addr]time.Time{},
		due:       map[netip.Addr]time.Time{},
		gated:     map[netip.Addr]struct{}{},
		unowned:   map[netip.Addr]unowned{},
		takeovers: map[netip.Addr]uint32{},
		expected:  map[string]int{},
		lostAt:    map[string]time.Time{},
		shown:     map[string]struct{}{},
		toShow:    map[string]*service{},
		buried:    map[string]bool{},
	}
	s.inventory = newInventory(s.wakeUp)
	s.replica = &replica{wake: s.wakeUp, claims: announce.NewClaims()}
	s.probes = newProbes(c.Layer2, s.macs.known, s.wakeUp)
	s.metrics = newMetrics(s, c.Registerer)
	return s
}

// Replica returns the state to be shared by membership.
func (s *Speaker) Replica() membership.Replica { return s.replica }

// Ours tells whether the MAC address belongs to a speaker that is or was a member.
func (s *Speaker) Ours(mac net.HardwareAddr) bool { return s.macs.known(mac) }

func (s *Speaker) wakeUp() {
	nudge(s.woken)
}

// Run announces until ctx is done, hands everything over, and leaves the members.
func (s *Speaker) Run(ctx context.Context, members Members) error {
	probing, stopProbing := context.WithCancel(context.Background())
	defer stopProbing()
	s.probes.ctx = probing
	s.members, s.started = members, time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop, synced, settled := ctx.Done(), s.config.Synced, members.Settled()
	var deadline time.Time
	var gate <-chan struct{}
	if s.config.Dataplane != nil {
		gate = s.config.Dataplane.Changed()
	}

	s.introduce()
	for {
		timer.Reset(time.Until(s.pass(time.Now())))
		if s.leaving && (len(s.held) == 0 || !time.Now().Before(deadline)) {
			break
		}
		select {
		case <-stop:
			s.log.Info("leaving: the others take over", "addresses", len(s.held))
			s.leaving, deadline, stop = true, time.Now().Add(handOver), nil
			s.view.stale = true
			s.introduce()
		case <-synced:
			synced = nil
		case <-settled:
			settled = nil
		case <-s.woken:
		case <-gate:
			s.gateMoved()
		case <-members.Changed():
			s.view.stale = true
		case <-s.config.Layer2.Changed():
			s.view.stale, s.unsynced = true, true
			s.introduce()
		case c := <-s.config.Layer2.Conflicts():
			s.contested(c)
		case <-timer.C:
		}
		if !s.active && synced == nil && settled == nil {
			s.activate()
		}
	}
	s.config.Layer2.Sync(nil)
	goodbye, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return members.Leave(goodbye)
}

// activate begins to decide: the objects of the API are known, and so is what the other speakers hold.
func (s *Speaker) activate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.view.stale = true, true
	for _, svc := range s.services {
		s.dirty[svc.Name] = svc
	}
	for c := range s.replica.claims.All() {
		if c.Owner == s.config.Node {
			s.touchAddr(c.Addr)
		}
	}
	s.nextSweep = time.Now().Add(housekeeping)
	s.log.Info("ready to announce", "services", len(s.services), "claims", s.replica.claims.Len(),
		"members", len(s.members.Members()), "after", time.Since(s.started).Round(time.Millisecond))
	s.introduce()
}

// Active tells whether the speaker has begun to decide.
func (s *Speaker) Active() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// introduce tells the other speakers about this one. A starting speaker that does not get ready counts as leaving.
func (s *Speaker) introduce() {
	var names []string
	for _, i := range s.config.Layer2.Interfaces() {
		names = append(names, i.Name)
		s.macs.add(i.MAC)
	}
	s.members.Update(s.leaving || s.late && !s.active, s.macs.own(s.config.Layer2.Interfaces()), names)
}

// pass does all that is to be done now, and returns when to come back.
func (s *Speaker) pass(now time.Time) time.Time {
	s.mu.Lock()
	s.mergeInbox(now)
	s.sweep(now)
	if !s.active {
		s.mu.Unlock()
		return s.notReady(now)
	}
	if s.view.stale || s.nodesChanged || s.cutOff || !s.view.quorum && !s.quorumAt.IsZero() && !now.Before(s.quorumAt) {
		s.follow(now)
	}
	for a, t := range s.due {
		if !t.After(now) {
			delete(s.due, a)
			s.touchAddr(a)
		}
	}
	s.takeProbes(now)
	for _, g := range s.takeDirty() {
		s.decide(g, now)
		for _, svc := range g.services {
			s.toShow[svc.Name] = svc
		}
	}
	s.dropOrphans()
	s.dropComplaints()
	s.meetRivals(now)
	s.show()
	announcements := s.announcements()
	next := s.nextTime(now)
	s.mu.Unlock()

	s.apply(announcements)
	return next
}

// notReady returns when a speaker that has not become active has to say so.
func (s *Speaker) notReady(now time.Time) time.Time {
	at := s.started.Add(lateStart)
	if now.Before(at) {
		return at
	}
	if !s.late {
		s.late = true
		s.log.Warn("not ready to announce yet: waiting for the API server or the other speakers; they take this node's addresses meanwhile")
		s.introduce()
	}
	return now.Add(housekeeping)
}

func (s *Speaker) nextTime(now time.Time) time.Time {
	next := s.nextSweep
	for _, t := range s.due {
		if t.Before(next) {
			next = t
		}
	}
	for _, r := range s.rivals {
		if r.until.Before(next) {
			next = r.until
		}
	}
	if !s.quorumAt.IsZero() && !s.view.quorum && s.quorumAt.Before(next) {
		next = s.quorumAt
	}
	if s.cutOff && !s.aloneAt.IsZero() && s.aloneAt.Before(next) {
		next = s.aloneAt
	}
	if next.Before(now) {
		return now
	}
	return next
}

// at has the address looked at again at that time or before.
func (s *Speaker) at(a netip.Addr, t time.Time) {
	if old, ok := s.due[a]; !ok || t.Before(old) {
		s.due[a] = t
	}
}

var _ Members = (*membership.List)(nil)
var _ Layer2 = (*layer2.Announcer)(nil)
