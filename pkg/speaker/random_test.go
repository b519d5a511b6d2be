package speaker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

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
							w.forget(name)
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
		syncs := p.layer2.times()
		w.serve(Service{Name: "default/one-more", Addrs: []netip.Addr{v6}}, "node-a")
		time.Sleep(time.Second)
		if n := p.layer2.times() - syncs; n > 2 {
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
