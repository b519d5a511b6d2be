package speaker

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

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
			w.forget(name)
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
		w.forget("node-a")
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
		w.forget(first)
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
