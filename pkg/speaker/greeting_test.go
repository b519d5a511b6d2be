package speaker

import (
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

func TestReadyOnceRoutersAreTold(t *testing.T) {
	peers := []bgp.Peer{{Name: "a"}, {Name: "b"}, {Name: "c", Passive: true}}
	up := func(names ...string) []bgp.Session {
		var all []bgp.Session
		for _, n := range names {
			all = append(all, bgp.Session{Peer: n, State: bgp.Established})
		}
		return all
	}
	start := time.Unix(0, 0)
	type step struct {
		after     time.Duration
		peers     []bgp.Peer
		live      []bgp.Session
		announced bool
		waits     string // "" if ready
	}
	for name, steps := range map[string][]step{
		"no peers": {{0, nil, nil, false, ""}},
		"rules first, then one peer after the other": {
			{0, peers, nil, false, "rules"},
			{time.Second, peers, nil, true, "with a, b"},
			{2 * time.Second, peers, up("b"), true, "with a"},
			{3 * time.Second, peers, up("a"), true, ""},
			{4 * time.Second, peers, nil, true, ""},
		},
		"a router that is down": {
			{0, peers, up("a"), true, "with b"},
			{greetPatience - time.Millisecond, peers, up("a"), true, "with b"},
			{greetPatience, peers, up("a"), true, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var g greeting
			if g.ready() == nil {
				t.Error("ready before anything is known")
			}
			for i, s := range steps {
				g.look(s.peers, s.live, s.announced, start.Add(s.after))
				err := g.ready()
				if (err == nil) != (s.waits == "") || err != nil && !strings.Contains(err.Error(), s.waits) {
					t.Errorf("step %d: %v, want it to wait for %q", i, err, s.waits)
				}
			}
		})
	}
}
