// Package process runs a BGP engine in a process of its own, so that a packet that ends the engine ends nothing else: see
// docs/decisions/0004-bgp-process.md.
package process

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// Config says how an Engine is run.
type Config struct {
	// Command is the program that calls Serve, and its arguments.
	Command []string
	// Log is also given what the child logs: on stderr, in the form of slog.JSONHandler.
	Log *slog.Logger
}

// Engine is a bgp.Engine whose sessions belong to a child process. The child runs while there are peers; if it ends, another is started
// and told everything.
type Engine struct {
	config  Config
	wake    chan struct{} // desired or resets have changed
	changed chan struct{}
	ended   chan struct{}

	mu       sync.Mutex
	desired  bgp.Desired
	wantedAt map[string]time.Time   // since when there is to be a session, by peer
	resets   map[string]string      // why, by peer
	sessions map[string]bgp.Session // as the child last said
	failures map[string]failure     // of the child, as sessions that it ended
}

// failure is a child's end.
type failure struct {
	when time.Time
	why  string
}

var _ bgp.Engine = (*Engine)(nil)

// Start returns an Engine that runs until ctx is done, and then a little longer: see Wait.
func Start(ctx context.Context, c Config) *Engine {
	e := newEngine(c)
	go func() {
		defer close(e.ended)
		e.supervise(ctx)
	}()
	return e
}

func newEngine(c Config) *Engine {
	return &Engine{
		config: c, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), ended: make(chan struct{}),
		wantedAt: map[string]time.Time{}, resets: map[string]string{}, sessions: map[string]bgp.Session{}, failures: map[string]failure{},
	}
}

// Wait returns when ctx is done and the child has ended: at most 10 s later. Before it ends, the child does what was last synced.
func (e *Engine) Wait() { <-e.ended }

// Sync implements bgp.Engine. It keeps what it is given, which is not to be changed.
func (e *Engine) Sync(d bgp.Desired) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.desired = d
	since := make(map[string]time.Time, len(d.Peers))
	for i := range d.Peers {
		name := d.Peers[i].Name
		since[name] = time.Now()
		if old, known := e.wantedAt[name]; known {
			since[name] = old
		}
	}
	e.wantedAt = since
	maps.DeleteFunc(e.failures, func(peer string, _ failure) bool { return since[peer].IsZero() })
	maps.DeleteFunc(e.resets, func(peer, _ string) bool { return since[peer].IsZero() })
	notify(e.wake)
}

// Reset implements bgp.Engine.
func (e *Engine) Reset(peer, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resets[peer] = why
	notify(e.wake)
}

// Sessions implements bgp.Engine. A session whose child has ended is Idle. Counters are at most 10 s old, and start anew with each child.
func (e *Engine) Sessions() []bgp.Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]bgp.Session, 0, len(e.desired.Peers))
	for _, p := range e.desired.Peers {
		s, said := e.sessions[p.Name]
		f := e.failures[p.Name]
		if !said {
			s = bgp.Session{Peer: p.Name, State: bgp.Idle, Since: e.wantedAt[p.Name]}
			if f.why != "" {
				s.Since = f.when
			}
		}
		if s.LastError == "" {
			s.LastError = f.why
		}
		all = append(all, s)
	}
	return all
}

// Changed implements bgp.Engine.
func (e *Engine) Changed() <-chan struct{} { return e.changed }

// take returns what the child is to be told; resets are given out only once.
func (e *Engine) take() (bgp.Desired, map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.resets) == 0 {
		return e.desired, nil
	}
	resets := e.resets
	e.resets = map[string]string{}
	return e.desired, resets
}

// wanted says whether there is something to run a child for.
func (e *Engine) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.desired.Peers) > 0
}

// heard notes what the child said.
func (e *Engine) heard(sessions []bgp.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	differ := len(sessions) != len(e.sessions)
	told := make(map[string]bgp.Session, len(sessions))
	for _, s := range sessions {
		old, known := e.sessions[s.Peer]
		differ = differ || !known || old.State != s.State || old.LastError != s.LastError || old.Announced != s.Announced
		told[s.Peer] = s
	}
	e.sessions = told
	if differ {
		notify(e.changed)
	}
}

// gone notes that the child has ended; why is empty if it was asked to.
func (e *Engine) gone(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.sessions)
	clear(e.resets)
	for _, p := range e.desired.Peers {
		if why != "" {
			e.failures[p.Name] = failure{when: time.Now(), why: why}
		}
	}
	notify(e.changed)
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
