package speaker

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

func TestNodeDies(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(60)
		time.Sleep(time.Second)
		before := w.allOwners(addrs)
		bursts := map[netip.Addr]int{}
		for _, a := range addrs {
			bursts[a] = w.bursts(a)
		}
		w.hub.detect = func(by, _ string) time.Duration {
			return 400*time.Millisecond + time.Duration(by[5]-'a')*9*time.Millisecond
		}
		died := time.Now()
		w.powerOff("node-b")
		time.Sleep(3 * time.Second)

		after := w.allOwners(addrs)
		for _, a := range addrs {
			switch {
			case before[a] != "node-b":
				if after[a] != before[a] || w.bursts(a) != bursts[a] {
					t.Errorf("%v moved from %s to %s (%d bursts more), though node-b died", a, before[a], after[a], w.bursts(a)-bursts[a])
				}
			case w.neighbour(a) != after[a]:
				t.Errorf("the client sends packets for %v to %s; %s has it", a, w.neighbour(a), after[a])
			case w.gap(a, died) > 450*time.Millisecond:
				t.Errorf("%v was gone for %v; node-b's death was noticed after 418 ms at most", a, w.gap(a, died))
			}
		}
		for name, n := range w.loads(addrs) {
			if n < 29 || n > 31 {
				t.Errorf("%s has %d of 60 addresses", name, n)
			}
		}

		w.start("node-b")
		time.Sleep(3 * time.Second)
		if now := w.allOwners(addrs); !maps.Equal(now, after) {
			t.Error("the node that returned took addresses back")
		}
	})
}

func TestTwoNodesSurviveOneAndItsReturn(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(10)
		time.Sleep(time.Second)
		w.powerOff("node-a")
		time.Sleep(2 * time.Second)
		for a, owner := range w.allOwners(addrs) {
			if owner != "node-b" {
				t.Errorf("%v is at %s", a, owner)
			}
		}
		w.start("node-a")
		time.Sleep(5 * time.Second)
		for a, owner := range w.allOwners(addrs) {
			if owner != "node-b" {
				t.Errorf("%v went back to %s", a, owner)
			}
		}
	})
}

func TestKilledSpeakerResumesQuietly(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(12)
		time.Sleep(time.Second)
		before, bursts := w.allOwners(addrs), map[netip.Addr]int{}
		for _, a := range addrs {
			bursts[a] = w.bursts(a)
		}
		w.kill("node-c")
		time.Sleep(2 * time.Second)
		w.start("node-c")
		time.Sleep(3 * time.Second)
		if after := w.allOwners(addrs); !maps.Equal(after, before) {
			t.Errorf("the owners changed from %v to %v", before, after)
		}
		for _, a := range addrs {
			if w.bursts(a) != bursts[a] {
				t.Errorf("%v was announced again though its owner stayed", a)
			}
		}
	})
}

func TestStartingSpeakerWaitsForTheOthers(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(9)
		time.Sleep(time.Second)
		w.powerOff("node-a")
		time.Sleep(time.Second)
		before := w.allOwners(addrs)
		w.hub.set(func(h *hub) { h.settle = time.Second })
		w.start("node-a")
		time.Sleep(500 * time.Millisecond)
		if n := len(w.claims("node-a")); n > 0 {
			t.Errorf("the starting speaker claimed %d addresses before it met the others", n)
		}
		for range 300 {
			time.Sleep(10 * time.Millisecond)
			if now := w.allOwners(addrs); !maps.Equal(now, before) {
				t.Fatal("the starting speaker took addresses before it met the others")
			}
		}
	})
}

// A claim may outlive its owner: it was on its way when the owner died, or comes from a speaker that was away for long.
func TestClaimOfADeadSpeaker(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(9)
		time.Sleep(10 * time.Second)
		before, from := w.allOwners(addrs), time.Now()
		var claims []announce.Claim
		for _, a := range addrs {
			claims = append(claims, announce.Claim{Addr: a, Owner: "node-x", Epoch: 100, Quorum: true})
		}
		for _, p := range w.running {
			p.speaker.Replica().Merge(announce.Messages(claims, 1000)[0])
		}
		time.Sleep(time.Second)
		if now := w.allOwners(addrs); !maps.Equal(now, before) {
			t.Errorf("the addresses went from %v to %v", before, now)
		}
		time.Sleep(time.Minute)
		for a, owner := range w.allOwners(addrs) {
			if gap := w.gap(a, from); gap > 0 {
				t.Errorf("nobody answered for %v for %v", a, gap)
			}
			for name := range w.running {
				if c := w.claims(name)[a]; c.Owner != owner {
					t.Errorf("%s thinks that %s holds %v", name, c.Owner, a)
				}
			}
		}
	})
}

func TestPartitionHeals(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(12)
		time.Sleep(steady + time.Second)
		w.hub.split("node-a")
		time.Sleep(3 * time.Second)
		majority := map[netip.Addr]string{}
		for _, a := range addrs {
			owners := w.owners(a)
			if len(owners) != 2 || owners[0] != "node-a" {
				t.Fatalf("%v is answered by %v, want node-a on its side and one on the other", a, owners)
			}
			majority[a] = owners[1]
		}
		// The client was on node-a's side.
		w.lan.mu.Lock()
		for _, a := range addrs {
			w.lan.neighbour[a] = "node-a"
		}
		w.lan.mu.Unlock()
		w.hub.heal()
		time.Sleep(400 * time.Millisecond)
		for a, owner := range w.allOwners(addrs) {
			if owner != majority[a] {
				t.Errorf("%v went to %s; the majority had it at %s", a, owner, majority[a])
			}
		}
		time.Sleep(3 * time.Second)
		for a, owner := range w.allOwners(addrs) {
			if w.neighbour(a) != owner {
				t.Errorf("the client sends packets for %v to %s; %s has it", a, w.neighbour(a), owner)
			}
		}
	})
}

// TestPartitionThatLasts: who was taken for dead for long looks whether it is still shown.
func TestPartitionThatLasts(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		rechecks := func(want int32) {
			t.Helper()
			for name, p := range w.running {
				if n := p.shown.rechecks.Load(); (n > 0) != (want > 0) {
					t.Errorf("%s has looked %d times", name, n)
				}
			}
		}
		time.Sleep(steady + time.Second)
		w.hub.split("node-a")
		time.Sleep(5 * time.Second)
		w.hub.heal()
		time.Sleep(5 * time.Second)
		rechecks(0)
		w.hub.split("node-a")
		time.Sleep(2 * burial)
		w.hub.heal()
		time.Sleep(5 * time.Second)
		rechecks(1)
	})
}

func TestCutCableComesBackQuietly(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(12)
		time.Sleep(time.Second)
		w.hub.split("node-a")
		w.running["node-a"].layer2.carrier()
		time.Sleep(3 * time.Second)
		before := w.allOwners(addrs)
		w.lan.mu.Lock()
		if n := len(w.running["node-a"].layer2.vips); n > 0 {
			t.Errorf("it is ready to answer for %d addresses, which it can't know to be its own any more", n)
		}
		w.lan.mu.Unlock()
		plugged := time.Now()
		w.running["node-a"].layer2.carrier("eth0")
		w.hub.heal()
		for time.Since(plugged) < 4*time.Second {
			if now := w.allOwners(addrs); !maps.Equal(now, before) {
				t.Fatalf("%v after node-a is back the owners changed", time.Since(plugged))
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestLostCarrierHandsOver(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(9)
		time.Sleep(time.Second)
		from := time.Now()
		w.running["node-b"].layer2.carrier()
		time.Sleep(100 * time.Millisecond)
		for a, owner := range w.allOwners(addrs) {
			if owner == "node-b" || w.gap(a, from) > 10*time.Millisecond {
				t.Errorf("%v is at %s after a gap of %v", a, owner, w.gap(a, from))
			}
		}
	})
}

func TestElectedSpeakerIsCutOffFromTheAPI(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.cutOff["node-a"], w.cutOff["node-b"] = true, true
		addrs := w.servicesWithAddresses(9)
		time.Sleep(5 * time.Second)
		for a, owner := range w.allOwners(addrs) {
			if owner != "node-c" {
				t.Errorf("%v is at %s, which does not know of it", a, owner)
			}
		}
	})
}

func TestStartingSpeakerWaitsForTheAPI(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(10)
		time.Sleep(time.Second)
		before := w.allOwners(addrs)
		w.kill("node-b")
		time.Sleep(time.Second)
		w.cutOff["node-b"] = true
		w.start("node-b")
		time.Sleep(time.Second)
		for _, a := range addrs {
			if owners := w.owners(a); before[a] == "node-b" && len(owners) > 0 {
				t.Errorf("%v is answered by %v before the speaker is back", a, owners)
			}
		}
		time.Sleep(lateStart)
		for a, owner := range w.allOwners(addrs) {
			if owner != "node-a" {
				t.Errorf("%v is at %s", a, owner)
			}
		}
	})
}
