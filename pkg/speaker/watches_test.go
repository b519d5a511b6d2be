package speaker

import (
	"net/netip"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

func TestWatchesBeginWithBGP(t *testing.T) {
	at := func(address string) *sessions {
		return &sessions{peers: []bgp.Peer{{Name: "tor"}}, bfd: map[string]bfd.Session{"tor": {Peer: netip.MustParseAddr(address)}}}
	}
	up, down := []bgp.Session{{Peer: "tor", State: bgp.Established}}, []bgp.Session{{Peer: "tor", State: bgp.Active}}
	var w watches
	start := time.Unix(0, 0)
	for _, step := range []struct {
		when    string
		after   time.Duration
		peer    *sessions
		live    []bgp.Session
		watched int
	}{
		{"before BGP is up", 0, at("192.0.2.1"), down, 0},
		{"BGP is up", time.Second, at("192.0.2.1"), up, 1},
		{"BGP is down again", 2 * time.Second, at("192.0.2.1"), down, 1},
		{"the peer has another address", 3 * time.Second, at("192.0.2.2"), down, 0},
		{"it has waited", 3*time.Second + watchPatience, at("192.0.2.2"), down, 1},
		{"the peer is gone", 20 * time.Second, &sessions{}, nil, 0},
		{"the peer is back", 21 * time.Second, at("192.0.2.2"), down, 0},
	} {
		if got := w.due(step.peer, step.live, start.Add(step.after)); len(got) != step.watched {
			t.Errorf("%s: %d sessions are watched, want %d", step.when, len(got), step.watched)
		}
	}
	far := start.Add(time.Hour)
	if got := w.next(far); !got.Equal(start.Add(21*time.Second + watchPatience)) {
		t.Errorf("due at %v", got)
	}
}
