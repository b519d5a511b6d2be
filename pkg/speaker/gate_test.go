package speaker

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dataplanehealth "github.com/steelyard-lb/steelyard/pkg/dataplane/health"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/rival"
)

// fakeGate is a dataplane that carries everything, or nothing.
type fakeGate struct {
	closed  atomic.Bool
	changed chan struct{}
	down    atomic.Pointer[[]string]
}

func (g *fakeGate) Carries(netip.Addr) bool  { return !g.closed.Load() }
func (g *fakeGate) Changed() <-chan struct{} { return g.changed }

func (g *fakeGate) Settled() bool { return true }

func (g *fakeGate) SetDown(nodes []string) { g.down.Store(&nodes) }

func (g *fakeGate) close(closed bool) {
	g.closed.Store(closed)
	g.changed <- struct{}{}
}

func TestSpeakersDontTakeEachOtherForRivals(t *testing.T) {
	if rival.Signature != dataplanehealth.Signature {
		t.Errorf("the health server signs with %q, and %q is looked for", dataplanehealth.Signature, rival.Signature)
	}
}

func TestOnlyNodesThatCarryAnnounce(t *testing.T) {
	web := Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}
	inWorld(t, 3, func(t *testing.T, w *world) {
		for _, n := range []string{"node-a", "node-b"} {
			w.running[n].gate.close(true)
		}
		w.serve(web, "node-a")
		time.Sleep(5 * time.Second)
		if got := w.owner(v4); got != "node-c" || w.owner(v6) != got {
			t.Errorf("%s owns it, want node-c, which alone has rules for it", got)
		}
	})
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.running["node-a"].gate.close(true)
		w.serve(web, "node-a")
		time.Sleep(time.Minute)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v announce without rules", owners)
		}
		w.running["node-a"].gate.close(false)
		time.Sleep(time.Second)
		w.owner(v4)
		w.owner(v6)
	})
}

func TestOwnerThatLosesItsRules(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}, "node-a")
		time.Sleep(time.Second)
		first := w.owner(v4)
		gate := w.running[first].gate
		// Rules that are put back soon cost nothing.
		gate.close(true)
		time.Sleep(2 * time.Second)
		gate.close(false)
		time.Sleep(10 * time.Second)
		if got := w.owner(v4); got != first || w.bursts(v4) != 1 {
			t.Fatalf("%s owns it after %d bursts, want %s, undisturbed", got, w.bursts(v4), first)
		}
		gate.close(true)
		time.Sleep(10 * time.Second)
		if got := w.owner(v4); got == first || w.owner(v6) != got {
			t.Errorf("%s still owns it, without rules", got)
		}
		gate.close(false)
		time.Sleep(10 * time.Second)
		if got := w.owner(v4); got == first {
			t.Errorf("%s took it back when its rules returned; a returning node takes nothing", got)
		}
	})
}

func TestDataplaneHearsOfLostPower(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		down := func(want ...string) {
			t.Helper()
			time.Sleep(time.Second)
			got := w.running["node-a"].gate.down.Load()
			if got == nil || !slices.Equal(*got, want) {
				t.Errorf("the dataplane of node-a believes %v to be down, want %v", got, want)
			}
		}
		w.powerOff("node-b")
		down("node-b")
		w.start("node-b")
		down()
	})
}

// The rules come a moment after the address, on each node; until then each waits for another to claim it.
func TestStrangerIsNoticedBehindASlowGate(t *testing.T) {
	for slow := time.Duration(0); slow < 600*time.Millisecond; slow += 17 * time.Millisecond {
		inWorld(t, 3, func(t *testing.T, w *world) {
			w.lan.mu.Lock()
			w.lan.strangers[v4] = net.HardwareAddr{0xde, 0xad, 0xbe, 0xef, 0, 1}
			w.lan.mu.Unlock()
			for _, p := range w.running {
				p.gate.closed.Store(true)
			}
			w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
			time.Sleep(slow)
			for _, p := range w.running {
				p.gate.close(false)
			}
			time.Sleep(5 * time.Second)
			if complaint := w.complaint("default/web"); !strings.Contains(complaint, "de:ad:be:ef:00:01") {
				t.Errorf("rules after %v: the condition says %q", slow, complaint)
			}
		})
	}
}
