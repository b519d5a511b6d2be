package bfd

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Speaker needs to know; its zero value works.
type Config struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Changed is told of each session whose Status differs in more than the counters of packets. It is called by the goroutine that is in
	// Run and must not block; it may call the Speaker's methods.
	Changed func(Status)
}

const (
	// tidyInterval is how long an endpoint that the kernel refused is left alone, and how soon a device is found that was not there.
	tidyInterval = time.Second
	// refreshInterval is how long a session that is not up keeps a source address that the kernel chose: routes and addresses change.
	refreshInterval = 5 * time.Second
	// errorAge is how long an error is told of after it last happened.
	errorAge = 10 * time.Second
	// inboxSize is how many packets may wait between the sockets and Run.
	inboxSize = 1024
)

// Speaker has BFD sessions. Its methods may be called at any time from any goroutine; nothing is sent before and after Run.
type Speaker struct {
	log     *slog.Logger
	changed func(Status)
	metrics *metrics
	quiet   *quiet
	network network
	inbox   chan received
	wake    chan struct{} // after Sync

	mu              sync.Mutex
	sessions        map[key]*session
	byDiscriminator map[uint32]*session
	ports           map[uint16]bool // that sessions send from
	due             schedule
	endpoints       map[endpoint]int // how many sessions each of them is for
	deaf            map[endpoint]error
	tidyAt          time.Time // when the endpoints have to be looked at again; zero: not before a Sync changes them
	closing         bool
	news            []Status
	buffer          []byte
}

// session is a session and its way to the peer.
type session struct {
	*machine
	key    key
	path   path // nil: to be opened
	opened time.Time
	learnt netip.Addr // where the peer sends to, if not configured
	port   uint16     // a session has one source port for its whole life, and to itself (RFC 5881, section 4); 0: not chosen

	in, out   uint64
	lastError string
	erred     time.Time
	told      Status // what Changed knows

	at    time.Time // when it is looked at; of interest to the schedule only
	index int       // in the schedule; -1: not there
}

// New returns a Speaker that does nothing until it is run.
func New(c Config) *Speaker {
	s := &Speaker{
		log:             c.Log,
		changed:         c.Changed,
		inbox:           make(chan received, inboxSize),
		wake:            make(chan struct{}, 1),
		sessions:        map[key]*session{},
		byDiscriminator: map[uint32]*session{},
		ports:           map[uint16]bool{},
		endpoints:       map[endpoint]int{},
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.changed == nil {
		s.changed = func(Status) {}
	}
	s.metrics = newMetrics(s, c.Registerer)
	s.quiet = &quiet{log: s.log}
	s.network = newKernel(s.inbox)
	return s
}

// Sync has exactly these sessions. Those that are there keep their state whatever else about them changes; the peers of those that are no
// longer wanted are told that it is on purpose. Of two sessions that differ in their timers only, the first counts.
func (s *Speaker) Sync(wanted []Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	now := time.Now()
	keep := make(map[key]bool, len(wanted))
	for _, w := range wanted {
		k := w.key()
		if keep[k] || !k.peer.IsValid() {
			continue
		}
		keep[k] = true
		w = w.complete()
		if x := s.sessions[k]; x == nil {
			s.add(now, k, w)
		} else if x.config != w || x.state == AdminDown {
			x.configure(now, w)
			s.due.put(x, now)
		}
	}
	for k, x := range s.sessions {
		if !keep[k] && x.state != AdminDown {
			x.leave(now)
			s.due.put(x, now)
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Speaker) add(now time.Time, k key, config Session) {
	discriminator := rand.Uint32()
	for discriminator == 0 || s.byDiscriminator[discriminator] != nil {
		discriminator = rand.Uint32()
	}
	x := &session{machine: newMachine(now, config, discriminator), key: k, index: -1}
	s.sessions[k] = x
	s.byDiscriminator[discriminator] = x
	s.endpoints[k.endpoint()]++
	s.tidyAt = now
	s.due.put(x, now)
}

func (s *Speaker) remove(now time.Time, x *session) {
	x.closePath()
	s.due.remove(x)
	delete(s.sessions, x.key)
	delete(s.byDiscriminator, x.discriminator)
	delete(s.ports, x.port)
	e := x.key.endpoint()
	if s.endpoints[e]--; s.endpoints[e] == 0 {
		delete(s.endpoints, e)
		s.tidyAt = now
	}
}

// Statuses tells how the sessions stand that were last asked for, sorted by peer.
func (s *Speaker) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.sessions))
	for _, x := range s.sessions {
		if x.state != AdminDown {
			all = append(all, s.status(x))
		}
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(a.Peer.Compare(b.Peer), a.Local.Compare(b.Local), cmp.Compare(a.Device, b.Device), compareBool(a.Multihop, b.Multihop))
	})
	return all
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (s *Speaker) status(x *session) Status {
	t := Status{
		Session: x.config, State: x.state, Since: x.since, Diagnostic: x.diagnostic, Failed: x.failed,
		RemoteState: x.remote.state, RemoteDiagnostic: x.remote.diagnostic,
		Discriminator: x.discriminator, RemoteDiscriminator: x.remote.discriminator,
		PacketsIn: x.in, PacketsOut: x.out, Ups: x.ups, Downs: x.downs, LastError: x.lastError,
	}
	if x.path != nil {
		t.Source = x.path.source().Addr()
	}
	if x.mayTransmit() && x.periodic() {
		t.TransmitInterval = x.interval()
	}
	if x.remote.discriminator != 0 {
		t.ReceiveInterval, t.DetectionTime = x.receiveInterval(), x.detectionTime()
	}
	if err := s.deaf[x.key.endpoint()]; err != nil {
		t.LastError = err.Error()
	}
	return t
}

// Run has the sessions until ctx is done, and then tells the peers that their end is on purpose, which takes a fraction of a second. It opens
// all sockets on its own goroutine: whoever locks that to a thread in another network namespace has a Speaker there. It always returns nil.
func (s *Speaker) Run(ctx context.Context) error {
	defer s.network.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := ctx.Done()
	var armed time.Time
	var packet received
	var got *received
	for {
		next := s.work(got)
		if s.closing && len(s.sessions) == 0 { // nobody else writes them
			return nil
		}
		if next.IsZero() {
			timer.Stop()
		} else if next != armed {
			timer.Reset(time.Until(next))
		}
		armed, got = next, nil
		select {
		case packet = <-s.inbox:
			got = &packet
		case <-timer.C:
			armed = time.Time{}
		case <-s.wake:
		case <-done:
			done = nil
			s.leave()
		}
	}
}

// leave takes all sessions down for good.
func (s *Speaker) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	now := time.Now()
	for _, x := range s.sessions {
		x.leave(now)
		s.due.put(x, now)
	}
}

// work processes a packet, if one is given, those that wait behind it, and everything whose time has come. It returns when there is more
// to do; the zero time if that is only after a packet or a Sync.
func (s *Speaker) work(r *received) (next time.Time) {
	s.mu.Lock()
	now := time.Now()
	if r != nil {
		s.receive(now, r)
	}
	s.readInbox(now)
	if !s.tidyAt.IsZero() && !now.Before(s.tidyAt) {
		s.tidy(now)
	}
	read := false
	for x := s.due.take(now); x != nil; x = s.due.take(now) {
		if x.overdue(now) && !read {
			// If it is us who were late, because the machine was busy or this process frozen, what the peers sent is there to be read.
			read = true
			s.readInbox(now)
			s.network.drain(func(r *received) { s.receive(now, r) })
		}
		x.expire(now)
		s.look(now, x)
	}
	next = s.tidyAt
	if len(s.due) > 0 && (next.IsZero() || s.due[0].at.Before(next)) {
		next = s.due[0].at
	}
	news := s.news
	s.news = nil
	s.mu.Unlock()
	for _, t := range news {
		s.changed(t)
	}
	return next
}

func (s *Speaker) readInbox(now time.Time) {
	for range inboxSize {
		select {
		case r := <-s.inbox:
			s.receive(now, &r)
		default:
			return
		}
	}
}
