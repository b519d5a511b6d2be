package speaker

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/backend"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/engine"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/rival"
)

// OtherProxy is the reason of the Event that says that another service proxy runs on the node, in mode full.
const OtherProxy announce.Reason = "OtherProxy"

// guard sees to it that no packet meets two service proxies in mode full: it starts the engine once no other proxy is alive on the node, and
// pauses it while one is. It implements Dataplane: what another proxy's rules carry may be announced too.
type guard struct {
	engine  *engine.Engine
	log     *slog.Logger
	warn    func(announce.Reason, string) // makes an Event about the node
	yielded atomic.Bool                   // the node's traffic is left to another proxy, or to the rules that it left

	mu      sync.Mutex
	changed []chan struct{} // of those who have asked
}

func newGuard(e *engine.Engine, log *slog.Logger, warn func(announce.Reason, string)) *guard {
	return &guard{engine: e, log: log, warn: warn}
}

// Carries implements Dataplane.
func (g *guard) Carries(a netip.Addr) bool { return g.yielded.Load() || g.engine.Carries(a) }

// Changed implements Dataplane.
func (g *guard) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{}, 1)
	g.changed = append(g.changed, c)
	return c
}

// Settled implements Dataplane.
func (g *guard) Settled() bool { return g.yielded.Load() || g.engine.Settled() }

// SetDown implements Dataplane.
func (g *guard) SetDown(nodes []string) { g.engine.SetDown(nodes) }

func (g *guard) tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.changed {
		nudge(c)
	}
}

func (g *guard) yield(to bool) {
	if g.yielded.Swap(to) != to {
		g.tell()
	}
}

// run guards until ctx is done. It is to be called when the engine knows all that exists.
func (g *guard) run(ctx context.Context) {
	go func() {
		for {
			select {
			case <-g.engine.Changed():
				g.tell()
			case <-ctx.Done():
				return
			}
		}
	}()
	if g.engine.Mode != dataplane.Full {
		g.carry(ctx, rival.Finding{}) // in mode loadbalancer there is to be another
		return
	}
	// A look that takes long has found rules of which it does not know yet whether they are alive. They carry the traffic meanwhile.
	const quick = 3 * time.Second
	undecided := time.AfterFunc(quick, func() { g.yield(true) })
	defer undecided.Stop()

	const interval = 10 * time.Second
	finder := &rival.Finder{}
	carrying, warned := false, false
	var leftovers []string // when it was decided to carry
	for {
		// To look costs other programs' rules a disturbance, so while carrying a glance has to do until there are rules that were not there.
		see := finder.Look
		if carrying {
			see = finder.Glance
		}
		found, err := see(ctx)
		if err == nil && carrying && !found.Alive && slices.ContainsFunc(found.Leftovers, func(l string) bool { return !slices.Contains(leftovers, l) }) {
			found, err = finder.Look(ctx)
			leftovers = found.Leftovers
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			g.log.Warn("can't see whether another service proxy runs on this node", "error", err)
		case found.Alive:
			undecided.Stop()
			carrying = false
			g.yield(true)
			g.engine.Pause()
			if !warned {
				warned = true
				message := fmt.Sprintf("%s carries the Services of this node, so Steelyard does not: %s. Remove it, or set dataplane.mode to loadbalancer.",
					found.Kind, found.Evidence)
				g.log.Error(message)
				g.warn(OtherProxy, message)
			}
		case !carrying:
			undecided.Stop()
			carrying, warned, leftovers = true, false, found.Leftovers
			g.carry(ctx, found)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// carry has the engine put its rules in the kernel, and takes the traffic over when they are there.
func (g *guard) carry(ctx context.Context, found rival.Finding) {
	if len(found.Leftovers) > 0 {
		g.log.Warn("another service proxy left its rules behind; remove them with: speaker cleanup --kube-proxy", "proxy", found.Kind,
			"evidence", found.Evidence, "rules", strings.Join(found.Leftovers, ", "))
	}
	g.log.Info("carrying Services on this node", "mode", g.engine.Mode, "backend", g.engine.BackendName)
	g.engine.Resume()
	g.engine.Start()
	for !g.engine.Settled() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	g.yield(false)
	// Rules of the backend that was in use before have carried the traffic until now.
	for _, name := range backend.Names {
		if name == g.engine.BackendName {
			continue
		}
		if err := removeRules(ctx, name, g.log); err != nil {
			g.log.Error("rules of the other backend are still there and meet packets first; remove them: restart the speaker, or run speaker cleanup", "error", err)
		}
	}
}
