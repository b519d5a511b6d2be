package speaker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

var (
	v4 = netip.MustParseAddr("10.0.0.1")
	v6 = netip.MustParseAddr("2001:db8::1")
)

func TestFreshAddressIsProbedThenAnnounced(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}, "node-b")
		time.Sleep(250 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer before the probe is over", owners)
		}
		time.Sleep(100 * time.Millisecond)
		if w.owner(v4) != w.owner(v6) {
			t.Errorf("one Service's addresses are at %s and %s", w.owner(v4), w.owner(v6))
		}
		for _, a := range []netip.Addr{v4, v6} {
			if w.bursts(a) != 1 || w.neighbour(a) != w.owner(a) {
				t.Errorf("%v: %d bursts, the client's table says %q", a, w.bursts(a), w.neighbour(a))
			}
		}
	})
}

func TestManyAddressesSpreadEvenly(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.lag = func(node string) time.Duration { return time.Duration(node[5]-'a') * 7 * time.Millisecond }
		addrs := w.servicesWithAddresses(100)
		time.Sleep(2 * time.Second)
		for name, n := range w.loads(addrs) {
			if n < 31 || n > 36 {
				t.Errorf("%s has %d of 100 addresses", name, n)
			}
		}
		for _, a := range addrs {
			if w.bursts(a) != 1 {
				t.Errorf("%v was announced %d times", a, w.bursts(a))
			}
		}
	})
}

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

func TestLeavingHandsOverWithoutGap(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(30)
		time.Sleep(time.Second)
		for _, name := range []string{"node-a", "node-b", "node-c"} {
			stopped := time.Now()
			p := w.running[name]
			p.stop()
			<-p.done
			if took := time.Since(stopped); took > 100*time.Millisecond {
				t.Errorf("%s took %v to leave, though the others were ready", name, took)
			}
			delete(w.running, name)
			for _, a := range addrs {
				if gap := w.gap(a, stopped); gap > 0 {
					t.Fatalf("nobody answered for %v for %v while %s left", a, gap, name)
				}
				if w.neighbour(a) == name {
					t.Fatalf("the client still sends packets for %v to %s", a, name)
				}
			}
			time.Sleep(time.Second)
			w.start(name)
			time.Sleep(3 * time.Second)
		}
		w.allOwners(addrs)
	})
}

func TestLastSpeakerLeavesAtOnce(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(3)
		time.Sleep(time.Second)
		w.allOwners(addrs)
		stopped := time.Now()
		p := w.running["node-a"]
		p.stop()
		<-p.done
		if took := time.Since(stopped); took > 10*time.Millisecond {
			t.Errorf("it waited %v for a successor that can't be", took)
		}
		if owners := w.owners(addrs[0]); len(owners) > 0 {
			t.Errorf("%v still answer", owners)
		}
		delete(w.running, "node-a")
	})
}

func TestLeavingGivesUpWaiting(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		first := w.owner(v4)
		// The other one lives and says nothing.
		w.hub.mu.Lock()
		w.hub.side[first] = 1
		w.hub.mu.Unlock()
		stopped := time.Now()
		p := w.running[first]
		p.stop()
		<-p.done
		if took := time.Since(stopped).Round(time.Second); took != handOver {
			t.Errorf("it left after %v, want %v", took, handOver)
		}
		delete(w.running, first)
	})
}

func TestExclusionMovesWithoutGap(t *testing.T) {
	for name, exclude := range map[string]func(*Node){
		"label":               func(n *Node) { n.Excluded = true },
		"network unavailable": func(n *Node) { n.NetworkUnavailable = true },
		"node selector":       func(n *Node) { n.Labels = labels.Set{"announces": "no"} },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 3, func(t *testing.T, w *world) {
				w.lag = func(node string) time.Duration { return time.Duration(node[5]-'a') * 20 * time.Millisecond }
				selector, err := labels.Parse("announces!=no")
				if err != nil {
					t.Fatal(err)
				}
				w.setConfig(func(c *config.Config) {
					c.L2Advertisements = []*config.L2Advertisement{{Pools: []string{"pool"}, Nodes: []labels.Selector{selector}}}
				})
				addrs := w.servicesWithAddresses(9)
				time.Sleep(time.Second)
				before := w.allOwners(addrs)
				from := time.Now()
				n := w.nodes["node-b"]
				exclude(&n)
				w.setNode(n)
				time.Sleep(500 * time.Millisecond)
				for a, owner := range w.allOwners(addrs) {
					if owner == "node-b" || before[a] != "node-b" && owner != before[a] {
						t.Errorf("%v went from %s to %s", a, before[a], owner)
					}
					if gap := w.gap(a, from); gap > 0 {
						t.Errorf("nobody answered for %v for %v", a, gap)
					}
				}
				time.Sleep(10 * time.Second)
				moved := w.allOwners(addrs)
				w.setNode(Node{Name: "node-b", Labels: labels.Set{"name": "node-b"}})
				time.Sleep(3 * time.Second)
				if now := w.allOwners(addrs); !maps.Equal(now, moved) {
					t.Error("the node that is eligible again took addresses back")
				}
			})
		})
	}
}

func TestNobodyEligible(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		first, bursts := w.owner(v4), w.bursts(v4)

		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}})
		time.Sleep(10 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer though no endpoint serves", owners)
		}
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-b")
		time.Sleep(10 * time.Millisecond)
		if now := w.owner(v4); now != first || w.bursts(v4) != bursts {
			t.Errorf("it went from %s to %s (%d bursts more) because its endpoint restarted", first, now, w.bursts(v4)-bursts)
		}
	})
}

func TestPolicyLocalFollowsTheEndpoint(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		svc := Service{Name: "default/web", Addrs: []netip.Addr{v4}, Local: true}
		w.serve(svc, "node-c")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-c" {
			t.Errorf("it is at %s", owner)
		}
		from := time.Now()
		w.serve(svc, "node-a")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-a" || w.gap(v4, from) > 0 {
			t.Errorf("it is at %s, after a gap of %v", owner, w.gap(v4, from))
		}
	})
}

func TestServiceGoesAway(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		w.delete("default/web")
		time.Sleep(10 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v still answer", owners)
		}
		for name, p := range w.running {
			if c := p.speaker.replica.get(v4); c.Owner != "" {
				t.Errorf("%s thinks that %s holds the address", name, c.Owner)
			}
		}
		// The address is fresh again, and so it is probed.
		w.serve(Service{Name: "default/other", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(200 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer before a probe", owners)
		}
		time.Sleep(time.Second)
		w.owner(v4)
	})
}

func TestSharedAddressMovesAsOne(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		other := netip.MustParseAddr("10.0.0.2")
		w.serve(Service{Name: "default/one", Addrs: []netip.Addr{v4}, Shared: true}, "node-a")
		w.serve(Service{Name: "default/far", Addrs: []netip.Addr{other}, Shared: true}, "node-a")
		time.Sleep(time.Second)
		// This one ties the two others together.
		w.serve(Service{Name: "default/both", Addrs: []netip.Addr{v4, other, v6}, Shared: true}, "node-c")
		time.Sleep(time.Second)
		if w.owner(v4) != w.owner(v6) || w.owner(v4) != w.owner(other) {
			t.Errorf("they are at %s, %s and %s", w.owner(v4), w.owner(other), w.owner(v6))
		}
		w.delete("default/one")
		time.Sleep(time.Second)
		w.owner(v4)
		w.delete("default/both")
		time.Sleep(time.Second)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer for an address without a Service", owners)
		}
		w.owner(other)
	})
}

func TestSharerGoesAway(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/one", Addrs: []netip.Addr{v4}, Shared: true, Local: true}, "node-a")
		w.serve(Service{Name: "default/two", Addrs: []netip.Addr{v4}, Shared: true, Local: true}, "node-c")
		time.Sleep(time.Second)
		first, rest := w.owner(v4), map[string]string{"node-a": "node-c", "node-c": "node-a"}
		w.delete(map[string]string{"node-a": "default/one", "node-c": "default/two"}[first])
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != rest[first] {
			t.Errorf("it is at %s, where no endpoint is", owner)
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
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(10 * time.Second)
		owner, from := w.owner(v4), time.Now()
		ghost := announce.Messages([]announce.Claim{{Addr: v4, Owner: "node-x", Epoch: 100, Quorum: true}}, 1000)[0]
		for _, p := range w.running {
			p.speaker.Replica().Merge(ghost)
		}
		time.Sleep(time.Minute)
		if now := w.owner(v4); now != owner || w.gap(v4, from) > 0 {
			t.Errorf("it went from %s to %s, with a gap of %v", owner, now, w.gap(v4, from))
		}
		for name, p := range w.running {
			if c := p.speaker.replica.get(v4); c.Owner != owner {
				t.Errorf("%s thinks that %s holds it", name, c.Owner)
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

func TestInterfaceSelectors(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.running["node-b"].layer2.carrier("eth0", "eth1")
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = []*config.L2Advertisement{{Pools: []string{"pool"}, Interfaces: []string{"eth1"}}}
		})
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-b" {
			t.Errorf("it is at %s, which has no eth1", owner)
		}
		interfaces := func() []string {
			w.lan.mu.Lock()
			defer w.lan.mu.Unlock()
			return w.running["node-b"].layer2.vips[v4].Interfaces
		}
		if got := interfaces(); !slices.Equal(got, []string{"eth1"}) {
			t.Errorf("it is answered on %v", got)
		}
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = append(c.L2Advertisements, &config.L2Advertisement{Pools: []string{"pool"}, Interfaces: []string{"eth0"}})
		})
		time.Sleep(10 * time.Millisecond)
		if got := interfaces(); w.owner(v4) != "node-b" || !slices.Equal(got, []string{"eth0", "eth1"}) {
			t.Errorf("it is answered by %s on %v", w.owner(v4), got)
		}
		w.setConfig(func(c *config.Config) { c.L2Advertisements = c.L2Advertisements[:1] })
		w.running["node-b"].layer2.carrier("eth0")
		time.Sleep(10 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer, though no node has eth1", owners)
		}
	})
}

func TestPreferredNodeTakesItBack(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		selector, err := labels.Parse("name=node-c")
		if err != nil {
			t.Fatal(err)
		}
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = []*config.L2Advertisement{{Pools: []string{"pool"}, Preferred: []config.PreferredNodes{{Weight: 5, Selector: selector}}}}
		})
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-c" {
			t.Fatalf("it is at %s", owner)
		}
		w.powerOff("node-c")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner == "node-c" {
			t.Fatalf("it is at %s", owner)
		}
		from := time.Now()
		w.start("node-c")
		time.Sleep(3 * time.Second)
		if owner := w.owner(v4); owner != "node-c" || w.gap(v4, from) > 0 {
			t.Errorf("it is at %s after a gap of %v", owner, w.gap(v4, from))
		}
	})
}

func TestStrangerHasTheAddress(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.lan.mu.Lock()
		w.lan.strangers[v4] = net.HardwareAddr{0xde, 0xad, 0xbe, 0xef, 0, 1}
		w.lan.mu.Unlock()
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}, "node-a")
		time.Sleep(10 * time.Second)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer for a stranger's address", owners)
		}
		w.owner(v6)
		complaint := w.services["default/web"].Complaint
		if !strings.Contains(complaint, "de:ad:be:ef:00:01") || !strings.Contains(complaint, v4.String()) || strings.Contains(complaint, v6.String()) {
			t.Errorf("the condition says %q", complaint)
		}

		// The stranger stays, and whoever is responsible does not: nobody gets used to it, and nothing is said twice.
		for _, p := range w.running {
			p.speaker.mu.Lock()
			held := p.speaker.held[v4] != nil
			p.speaker.mu.Unlock()
			if held {
				w.powerOff(p.speaker.config.Node)
				break
			}
		}
		time.Sleep(2 * time.Minute)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer for a stranger's address after a node's death", owners)
		}
		if len(w.reporter.events) != 1 {
			t.Errorf("Events: %v, want one", w.reporter.events)
		}

		w.lan.mu.Lock()
		delete(w.lan.strangers, v4)
		w.lan.mu.Unlock()
		time.Sleep(reprobe + time.Second)
		w.owner(v4)
		if complaint := w.services["default/web"].Complaint; complaint != "" {
			t.Errorf("the condition still says %q", complaint)
		}
	})
}

// Two speakers may probe one address at the same time, before they have heard of each other.
func TestProbeMeetsAProbe(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.lan.mu.Lock()
		w.lan.strangers[v4] = net.HardwareAddr{2, 0, 0, 0, 9, 9}
		w.lan.mu.Unlock()
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(250 * time.Millisecond)
		w.lan.mu.Lock()
		delete(w.lan.strangers, v4)
		w.lan.mu.Unlock()
		time.Sleep(time.Second)
		w.owner(v4)
		if len(w.reporter.events) > 0 {
			t.Errorf("users were told: %v", w.reporter.events)
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

func TestSpeakersDisagree(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		svc := Service{Name: "default/web", Addrs: []netip.Addr{v4}, Local: true}
		w.serve(svc, "node-a")
		time.Sleep(time.Second)
		// node-a does not hear that the endpoint has moved, and node-b that it has moved back.
		w.cutOff["node-a"] = true
		w.serve(svc, "node-b")
		before := w.bursts(v4)
		time.Sleep(20 * time.Second)
		if n := w.bursts(v4) - before; n > 11 {
			t.Errorf("the address moved %d times in 20 s", n)
		}
		if owners := w.owners(v4); len(owners) == 0 {
			t.Error("nobody answers")
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

// TestAnythingMayHappen does things to a cluster at random, with a network that loses and delays, and asks in between that every address
// be at one node, that the client's table be right, and that nothing moves without a cause.
func TestAnythingMayHappen(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			inWorld(t, 5, func(t *testing.T, w *world) {
				w.hub.set(func(h *hub) {
					h.delay = func(string, string) time.Duration { return time.Duration(rand.IntN(30)) * time.Millisecond }
					h.lose = func(string, string) bool { return rand.IntN(4) == 0 }
					h.detect = func(string, string) time.Duration { return time.Duration(300+rand.IntN(300)) * time.Millisecond }
				})
				w.lag = func(string) time.Duration { return time.Duration(rand.IntN(80)) * time.Millisecond }
				addrs := w.servicesWithAddresses(20)
				down := map[string]bool{}
				for step := range 25 {
					name := nodeName(random.IntN(5))
					what := "nothing"
					switch random.IntN(6) {
					case 0:
						if !down[name] && len(down) < 3 {
							what = "power off " + name
							w.powerOff(name)
							down[name] = true
						}
					case 1:
						for _, name := range slices.Sorted(maps.Keys(down)) {
							what = "power on " + name
							w.start(name)
							delete(down, name)
							break
						}
					case 2:
						if !down[name] && len(down) < 3 {
							what = "stop " + name
							p := w.running[name]
							p.stop()
							<-p.done
							delete(w.running, name)
							down[name] = true
						}
					case 3:
						what = "exclude or include " + name
						n := w.nodes[name]
						n.Excluded = !n.Excluded && name != "node-a"
						w.setNode(n)
					case 4:
						if !down[name] && len(down) == 0 {
							what = "partition and heal " + name
							w.hub.split(name)
							time.Sleep(2 * time.Second)
							w.hub.heal()
						}
					case 5:
						if !down[name] {
							what = "kill and restart " + name
							w.kill(name)
							time.Sleep(time.Second)
							w.start(name)
						}
					}
					time.Sleep(12 * time.Second)
					eligible := 0
					for name := range w.running {
						if !w.nodes[name].Excluded {
							eligible++
						}
					}
					for _, a := range addrs {
						owners := w.owners(a)
						if eligible == 0 && len(owners) == 0 {
							continue
						}
						if len(owners) != 1 || w.nodes[owners[0]].Excluded {
							t.Fatalf("step %d (%s): %v is answered by %v", step, what, a, owners)
						}
						if w.neighbour(a) != owners[0] {
							t.Fatalf("step %d (%s): the client sends packets for %v to %s; %s has it", step, what, a, w.neighbour(a), owners[0])
						}
					}
				}
			})
		})
	}
}

// TestTenThousandAddresses keeps the cost of a node's death, and of one changed Service, in proportion to what changes.
func TestTenThousandAddresses(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		addrs := w.servicesWithAddresses(10_000)
		time.Sleep(30 * time.Second)
		p := w.running["node-b"]
		syncs := p.layer2.syncs
		w.serve(Service{Name: "default/one-more", Addrs: []netip.Addr{v6}}, "node-a")
		time.Sleep(time.Second)
		if n := p.layer2.syncs - syncs; n > 2 {
			t.Errorf("one Service more made %d syncs of layer 2", n)
		}
		before := w.allOwners(addrs)
		w.powerOff("node-a")
		time.Sleep(5 * time.Second)
		moved := 0
		for a, owner := range w.allOwners(addrs) {
			if owner != before[a] {
				moved++
			}
		}
		for name, n := range w.loads(addrs) {
			if n < 4900 || n > 5100 {
				t.Errorf("%s has %d of 10,000 addresses", name, n)
			}
		}
		if moved > 3500 {
			t.Errorf("%d addresses moved, a third was enough", moved)
		}
	})
}
