package speaker

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// greetPatience is how long a starting speaker is not ready because routers have not been told yet. One that is down must not hold up
// a rollout for ever.
const greetPatience = 20 * time.Second

// greeting is whether a starting speaker's peers have been told: until then it is not ready, so that a rollout does not go on to the next
// node while the routers have no route by this one. Once ready, it stays so.
type greeting struct {
	mu      sync.Mutex
	done    bool
	waiting string
	greeted map[string]bool
	since   time.Time // when the peers could first be told
}

// look takes note of who has been told.
func (g *greeting) look(peers []bgp.Peer, live []bgp.Session, announced bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done {
		return
	}
	if len(peers) > 0 && !announced {
		g.waiting = "waiting for rules to be in the kernel before routers are told of addresses"
		return
	}
	if g.since.IsZero() {
		g.since, g.greeted = now, map[string]bool{}
	}
	for _, s := range live {
		if s.State == bgp.Established {
			g.greeted[s.Peer] = true
		}
	}
	var missing []string
	for i := range peers {
		if !peers[i].Passive && !g.greeted[peers[i].Name] {
			missing = append(missing, peers[i].Name)
		}
	}
	slices.Sort(missing)
	g.done = len(missing) == 0 || now.Sub(g.since) >= greetPatience
	g.waiting = "waiting for the BGP sessions with " + strings.Join(missing, ", ")
}

// next returns when to look again, at most the time given.
func (g *greeting) next(at time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.since.Add(greetPatience); !g.done && !g.since.IsZero() && t.Before(at) {
		return t
	}
	return at
}

// ready says what is still waited for.
func (g *greeting) ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.done:
		return nil
	case g.waiting == "":
		return errors.New("waiting to know which routers there are")
	}
	return errors.New(g.waiting)
}
