package process

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// Applier is an engine inside the child. Its methods are called concurrently, but Apply only once at a time and Stop last.
type Applier interface {
	// Apply makes a Change so. An error is for what only another process can mend: the child ends with it and everything is sent to
	// the next. What is wrong with a single peer is a Session's LastError.
	Apply(bgp.Change) error
	// Reset ends a peer's session as bgp.Engine says. It does nothing for a peer that there is not.
	Reset(peer, why string)
	// Sessions tells how things stand, sorted by peer.
	Sessions() []bgp.Session
	// Changed says that a session's State, LastError or Announced may be another now.
	Changed() <-chan struct{}
	// Stop ends all sessions: those with graceful restart without a word, so that peers keep the routes, the others with a Cease.
	Stop()
}

const (
	// reportEvery is how old counters may become: monitoring asks every 15 s or more rarely. It is the child's sign of life, too.
	reportEvery = 10 * time.Second
	// reportPause is the least time between two reports of sessions, which change often while routes are loaded.
	reportPause = 50 * time.Millisecond
	// stopPatience is how long the child tries to end as it should.
	stopPatience = 4 * time.Second
)

// Serve is the child's side: it does with engine what comes from in, tells out how sessions stand, and returns after in has ended and
// engine has stopped. The process ignores signals that ask it to end: a container's stop signal may reach every process in it, and the
// speaker withdraws routes by this one before it closes in.
func Serve(in io.Reader, out io.Writer, engine Applier) error {
	// Without SIGPIPE a log line or report that a dead speaker does not read fails, and does not end the process before Stop.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGPIPE)
	return serve(in, out, engine)
}

func serve(in io.Reader, out io.Writer, engine Applier) error {
	s := &server{engine: engine, changes: make(chan numbered, 1), applied: make(chan uint64), failed: make(chan error, 3), ending: make(chan struct{}), free: debug.FreeOSMemory}
	applying := make(chan struct{})
	go func() {
		defer close(applying)
		s.apply()
	}()
	go s.report(gob.NewEncoder(out))
	go s.read(gob.NewDecoder(in))
	err := <-s.failed
	ended := errors.Is(err, io.EOF)
	close(s.ending)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if ended { // the last order holds: routes may be withdrawn in it
			<-applying
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopping = true
		engine.Stop()
	}()
	if ended {
		err = nil
	}
	select {
	case <-stopped:
		return err
	case <-time.After(stopPatience):
		return errors.Join(err, fmt.Errorf("BGP sessions did not end within %v", stopPatience))
	}
}

type server struct {
	engine  Applier
	changes chan numbered
	applied chan uint64
	failed  chan error
	ending  chan struct{}
	free    func() // returns memory to the kernel

	mu       sync.Mutex // held by Apply and Stop
	stopping bool
}

// numbered is a Change and its number.
type numbered struct {
	number uint64
	bgp.Change
}

func (s *server) read(in *gob.Decoder) {
	defer close(s.changes)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			s.failed <- err
			return
		}
		if o.Peer != "" {
			// BFD is behind this: it does not wait for a change that takes long.
			s.engine.Reset(o.Peer, o.Why)
			continue
		}
		s.changes <- numbered{o.Number, o.Change.unpack()}
	}
}

func (s *server) apply() {
	for c := range s.changes {
		if err := s.applyOne(c.Change); err != nil {
			s.failed <- fmt.Errorf("apply a change: %w", err)
			return
		}
		select {
		case s.applied <- c.number:
		case <-s.ending:
		}
	}
}

func (s *server) applyOne(c bgp.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil
	}
	return s.engine.Apply(c)
}

func (s *server) report(out *gob.Encoder) {
	every := time.NewTicker(reportEvery)
	defer every.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	changed := s.engine.Changed()
	memory := trimmer{free: s.free}
	for {
		var r report
		select {
		case <-s.ending:
			return
		case r.Applied = <-s.applied:
			memory.used()
		case <-changed:
			memory.used()
			changed = nil
			pause.Reset(reportPause)
			continue
		case <-pause.C:
			changed = s.engine.Changed()
			r.HasSessions = true
		case now := <-every.C:
			memory.tick(now)
			r.HasSessions = true
		}
		if r.HasSessions {
			r.Sessions = s.engine.Sessions()
		}
		if err := out.Encode(r); err != nil {
			s.failed <- fmt.Errorf("tell the speaker: %w", err)
			return
		}
	}
}

// trimPause is the least time between two trims, which take as long as it takes to look at all memory.
const trimPause = time.Minute

// trimmer gives back the memory that loading routes and sending them took, when things are quiet again. Go does so only when the heap
// grows once more, which in a process that has little else to do may be never: with 10,000 routes that would be a third.
type trimmer struct {
	free        func()
	busy, dirty bool
	last        time.Time
}

// used says that something happened.
func (t *trimmer) used() { t.busy, t.dirty = true, true }

// tick trims if nothing happened since the last tick, but something since the last trim.
func (t *trimmer) tick(now time.Time) {
	if !t.busy && t.dirty && now.Sub(t.last) >= trimPause {
		t.free()
		t.dirty, t.last = false, now
	}
	t.busy = false
}
