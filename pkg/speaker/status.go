package speaker

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	// statusRetry is the time between attempts while the API server takes nothing.
	statusRetry = 2 * time.Second
	// statusRefused is when something that the API server does not want is offered again.
	statusRefused = 30 * time.Second
	// statusSettle is the shortest time between writes of one BGPSession whose state is the same.
	statusSettle = 10 * time.Second
	// statusBurst is how often in short order a session may change and be told of at once.
	statusBurst = 6
	// statusReview is how often it is made sure that nobody has changed or deleted an object.
	statusReview = time.Hour
)

// statuses writes this node's ServiceAnnouncements and BGPSessions, one after the other, and Events of sessions that come up or go down. It
// writes only what differs from what the API server has. Only the latest of what it is told about one thing waits to be written.
//
// The objects have no owner: an owner reference names a UID, and a Service or Node that is deleted and made anew would take down what its
// successor needs.
type statuses struct {
	api  *api
	node string
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	items map[statusKey]*statusItem
	// Sessions go first: they are few, and ten thousand Services may wait.
	sessionQueue, queue []statusKey
	later               map[statusKey]time.Time // what is to be queued, and when
	reviewAt            time.Time
	active              bool // ready has been called
	keepNoMore          context.CancelFunc

	// Sessions are looked at once it is known what an earlier run wrote.
	adopted   bool // set by run only
	latest    []v1beta1.BGPSessionStatus
	told      bool                                // latest has been set
	published map[string]v1beta1.BGPSessionStatus // by peer, as it is to be written
	written   map[statusKey]time.Time             // BGPSessions of this run
	up        map[string]sessionUp                // by peer
	events    map[string]sessionEvent             // to be written, by peer
	busy      map[string]time.Time                // by peer, see hurry

	complainAt time.Time // belongs to run, like what follows from it
}

// statusKey names an object.
type statusKey struct{ resource, namespace, name string }

// statusItem is an object as it is to be, and as it is. All texts are JSON, "" for none.
type statusItem struct {
	service     string // of a ServiceAnnouncement
	layer2, bgp statusPart
	session     string // the status of a BGPSession
	has         string // the status that the API server has
	queued      bool
}

// statusPart is what of a ServiceAnnouncement one source tells of. What an earlier run wrote is inherited until this one tells something
// else, so that an object is not taken apart and put together again with every restart.
type statusPart struct {
	text      string
	inherited bool
}

func newStatuses(a *api, node string, log *slog.Logger) *statuses {
	return &statuses{
		api: a, node: node, log: log, wake: make(chan struct{}, 1),
		items:     map[statusKey]*statusItem{},
		later:     map[statusKey]time.Time{},
		published: map[string]v1beta1.BGPSessionStatus{},
		written:   map[statusKey]time.Time{},
		up:        map[string]sessionUp{},
		events:    map[string]sessionEvent{},
		busy:      map[string]time.Time{},
	}
}

// SetLayer2 tells what this node answers for, of a Service named namespace/name; nil for nothing. It does not wait for the API.
func (s *statuses) SetLayer2(service string, l *v1beta1.Layer2Announcement) {
	s.setPart(service, encodePart(l), func(it *statusItem) *statusPart { return &it.layer2 })
}

// SetBGP tells what this node tells routers of a Service named namespace/name; nil for nothing. It does not wait for the API.
func (s *statuses) SetBGP(service string, b *v1beta1.BGPAnnouncement) {
	s.setPart(service, encodePart(b), func(it *statusItem) *statusPart { return &it.bgp })
}

func (s *statuses) setPart(service, text string, part func(*statusItem) *statusPart) {
	key, name := s.announcementKey(service)
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[key]
	if it == nil {
		if text == "" {
			return
		}
		it = &statusItem{}
		s.items[key] = it
	}
	it.service = name
	p := part(it)
	if p.inherited && text == "" {
		return // ready knows whether that is final
	}
	p.inherited = false
	if p.text != text {
		p.text = text
		s.enqueue(key, time.Time{})
		s.wakeUp()
	}
}

// SetSessions tells how all of this node's sessions stand. It does not wait for the API. A state that lasts has the Since that it had first.
func (s *statuses) SetSessions(all []v1beta1.BGPSessionStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest, s.told = all, true
	if s.adopted {
		s.lookAtSessions(time.Now())
		s.wakeUp()
	}
}

// ready says that all has been told that is announced. Until then, what an earlier run wrote stays unless something else takes its place.
func (s *statuses) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active {
		return
	}
	for _, it := range s.items {
		for _, p := range []*statusPart{&it.layer2, &it.bgp} {
			if p.inherited {
				*p = statusPart{}
			}
		}
	}
	// Others may have taken this node for dead meanwhile, and have deleted what was listed at first. And everything is looked at anew.
	s.active, s.reviewAt = true, time.Time{}
	s.wakeUp()
}

// reviewIn has everything looked at anew after a while, at the latest.
func (s *statuses) reviewIn(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := time.Now().Add(d); at.Before(s.reviewAt) {
		s.reviewAt = at
		s.wakeUp()
	}
}

// run writes until ctx is done. What is written then stays, for the next run to go on with.
func (s *statuses) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait, away := s.pass(ctx)
		wake := s.wake
		if away {
			wake = nil // whatever is new has to wait, too
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pass writes what there is to be written. It returns when to come back, and whether the API server is away.
func (s *statuses) pass(ctx context.Context) (wait time.Duration, away bool) {
	s.mu.Lock()
	review := !time.Now().Before(s.reviewAt)
	s.mu.Unlock()
	if review {
		if err := s.review(ctx); err != nil {
			s.complain(ctx, "list what this node wrote before", err)
			return statusRetry, true
		}
	}
	s.dequeueLater(time.Now())
	for ctx.Err() == nil {
		if !s.writeEvents(ctx) {
			return statusRetry, true
		}
		key, status, ok := s.next()
		if !ok {
			break
		}
		err := s.write(ctx, key, status)
		if err != nil {
			s.complain(ctx, "status object not written yet", err, "resource", key.resource, "namespace", key.namespace, "name", key.name)
		}
		switch {
		case err == nil:
			s.done(key, status)
		case refusedByAPI(err):
			s.postpone(key, time.Now().Add(statusRefused))
		default:
			s.postpone(key, time.Now())
			return statusRetry, true
		}
	}
	return s.idle(time.Now()), false
}

// next takes an object from the queue whose status is to be another; "" for none.
func (s *statuses) next() (key statusKey, status string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		queue := &s.sessionQueue
		if len(*queue) == 0 {
			queue = &s.queue
		}
		if len(*queue) == 0 {
			s.sessionQueue, s.queue = nil, nil
			return statusKey{}, "", false
		}
		key, *queue = (*queue)[0], (*queue)[1:]
		it := s.items[key]
		if it == nil {
			continue
		}
		it.queued = false
		status = it.wanted(s.node)
		switch {
		case status == it.has:
			s.forgetIfGone(key, it)
		case status == "" && !s.active: // the review that ready has made comes back to it
		default:
			return key, status, true
		}
	}
}

// done notes what the API server has.
func (s *statuses) done(key statusKey, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key.resource == sessionsResource {
		s.written[key] = time.Now()
	}
	it := s.items[key]
	it.has = status
	s.forgetIfGone(key, it)
}

func (s *statuses) forgetIfGone(key statusKey, it *statusItem) {
	if it.has == "" && it.layer2.text == "" && it.bgp.text == "" && it.session == "" && !it.queued {
		delete(s.items, key)
		delete(s.later, key)
		delete(s.written, key)
	}
}

// enqueue has the object looked at, at the given time or at once.
func (s *statuses) enqueue(key statusKey, at time.Time) {
	it := s.items[key]
	switch {
	case it.queued:
	case at.After(time.Now()):
		if known, ok := s.later[key]; !ok || at.Before(known) {
			s.later[key] = at
		}
	default:
		it.queued = true
		delete(s.later, key)
		if key.resource == sessionsResource {
			s.sessionQueue = append(s.sessionQueue, key)
		} else {
			s.queue = append(s.queue, key)
		}
	}
}

func (s *statuses) postpone(key statusKey, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueue(key, at)
}

func (s *statuses) dequeueLater(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, at := range s.later {
		if !now.Before(at) {
			s.enqueue(key, at)
		}
	}
}

// idle returns how long there is nothing to do for.
func (s *statuses) idle(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.reviewAt
	for _, at := range s.later {
		if at.Before(next) {
			next = at
		}
	}
	for _, e := range s.events {
		if e.due.Before(next) {
			next = e.due
		}
	}
	return next.Sub(now)
}

func (s *statuses) wakeUp() {
	nudge(s.wake)
}

// wanted returns the status that the object is to have, "" if there is to be no object.
func (it *statusItem) wanted(node string) string {
	switch {
	case it.session != "":
		return it.session
	case it.layer2.text == "" && it.bgp.text == "":
		return ""
	}
	return encode(struct {
		Service string          `json:"service"`
		Node    string          `json:"node"`
		Layer2  json.RawMessage `json:"layer2,omitempty"`
		BGP     json.RawMessage `json:"bgp,omitempty"`
	}{it.service, node, json.RawMessage(it.layer2.text), json.RawMessage(it.bgp.text)})
}

func encodePart[T any](part *T) string {
	if part == nil {
		return ""
	}
	return encode(part)
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // there is nothing in a status that could not be encoded
	}
	return string(text)
}

// complain logs an error, unless it has just logged another: what keeps one object from being written mostly keeps all.
func (s *statuses) complain(ctx context.Context, what string, err error, about ...any) {
	if now := time.Now(); ctx.Err() == nil && !now.Before(s.complainAt) {
		s.complainAt = now.Add(statusRefused)
		s.log.Warn(what, append(about, "error", err)...)
	}
}
