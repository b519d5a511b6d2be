package speaker

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

func TestRoutesFollowTheNode(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.serve("default/web", "10.0.0.1", "node-b")
		o.serve("default/none", "10.0.0.2")
		o.expect(t, "before all objects are known")
		close(o.synced)
		o.expect(t, "at first", "10.0.0.1/32")
		o.SetNode(Node{Name: "node-a", Excluded: true})
		o.expect(t, "excluded by its label")
		o.SetNode(Node{Name: "node-a", NetworkUnavailable: true})
		o.expect(t, "without a network")
		o.SetNode(Node{Name: "node-a"})
		o.expect(t, "as it was", "10.0.0.1/32")
		o.SetEndpoints("default/none-1", Endpoints{Service: "default/none", Serving: []string{"node-c"}})
		o.expect(t, "with another Service that serves", "10.0.0.1/32", "10.0.0.2/32")
		o.SetService(Service{Name: "default/web", Local: true, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
		o.expect(t, "without an endpoint of its own", "10.0.0.2/32")
		if o.report.told("default/web") != nil || o.report.told("default/none") == nil {
			t.Errorf("reported: %v", o.report.bgp)
		}
		o.DeleteService("default/none")
		o.expect(t, "without the Service")
	})
}

func TestRoutesWaitForRules(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		slow := netip.MustParseAddr("10.0.0.2")
		o.gate.close(slow)
		o.serve("default/web", "10.0.0.1", "node-b")
		o.serve("default/slow", "10.0.0.2", "node-b")
		close(o.synced)
		synctest.Wait()
		if o.engine.times() > 0 {
			t.Error("the engine was told before the rules were there: a restart would take routes back")
		}
		o.gate.open(slow)
		o.expect(t, "with all rules", "10.0.0.1/32", "10.0.0.2/32")

		o.gate.close(slow)
		o.expect(t, "just after the rules were removed", "10.0.0.1/32", "10.0.0.2/32")
		time.Sleep(repair + time.Second)
		o.expect(t, "after they were not put back", "10.0.0.1/32")
		o.gate.open(slow)
		o.expect(t, "put back", "10.0.0.1/32", "10.0.0.2/32")
	})
}

func TestRulesThatNeverCome(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.gate.close(netip.MustParseAddr("10.0.0.2"))
		o.serve("default/web", "10.0.0.1", "node-b")
		o.serve("default/slow", "10.0.0.2", "node-b")
		close(o.synced)
		time.Sleep(carryPatience + time.Second)
		o.expect(t, "after having waited long enough", "10.0.0.1/32")
	})
}

func TestRulesThatTheKernelDoesNotGet(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.gate.close(netip.MustParseAddr("10.0.0.2"))
		o.serve("default/web", "10.0.0.1", "node-b")
		o.serve("default/never", "10.0.0.2", "node-b")
		close(o.synced)
		time.Sleep(carryPatience / 2)
		o.expect(t, "while rules are on their way")
		o.gate.settled.Store(true)
		time.Sleep(settling)
		o.expect(t, "when no more rules come", "10.0.0.1/32")
	})
}

// TestSharedAddressWaitsForRules: Services that share an address wait for its rules, and lose its route, each for itself and in the same time.
func TestSharedAddressWaitsForRules(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		shared := netip.MustParseAddr("10.0.0.1")
		names := []string{"default/a", "default/b", "default/c", "default/d"}
		for _, name := range names {
			o.serve(name, "10.0.0.1", "node-b")
		}
		o.serve("default/idle", "10.0.0.1")
		close(o.synced)
		o.expect(t, "with rules", "10.0.0.1/32")
		o.gate.close(shared)
		synctest.Wait()
		o.serve("default/late", "10.0.0.1", "node-b")
		time.Sleep(repair + time.Second)
		o.expect(t, "after the rules were not put back")
		o.SetService(Service{Name: "default/idle", Labels: labels.Set{"changed": "yes"}, Addrs: []netip.Addr{shared}}) // has nothing to announce
		synctest.Wait()
		o.gate.open(shared)
		o.expect(t, "put back", "10.0.0.1/32")
		for _, name := range append(names, "default/late") {
			if o.report.told(name) == nil {
				t.Errorf("%s still waits for rules that are there", name)
			}
		}
	})
}

// TestNobodyWaitsForADeletedService: what is gone does not keep a starting speaker from talking to routers.
func TestNobodyWaitsForADeletedService(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.gate.close(netip.MustParseAddr("10.0.0.2"))
		o.serve("default/web", "10.0.0.1", "node-b")
		o.serve("default/slow", "10.0.0.2", "node-b")
		close(o.synced)
		o.expect(t, "while one has no rules")
		o.DeleteService("default/slow")
		o.expect(t, "without that one", "10.0.0.1/32")
	})
}

// TestRulesThatGoBeforeTheStart: what no router has been told of is not kept for want of rules.
func TestRulesThatGoBeforeTheStart(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		first, slow := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		o.gate.close(slow)
		o.serve("default/web", "10.0.0.1", "node-b")
		o.serve("default/slow", "10.0.0.2", "node-b")
		close(o.synced)
		o.expect(t, "while one has no rules")
		o.gate.close(first)
		synctest.Wait()
		o.gate.open(slow)
		o.expect(t, "while the other has none")
		o.gate.open(first)
		o.expect(t, "with all rules", "10.0.0.1/32", "10.0.0.2/32")
	})
}

func TestRoutesGoWithTheNode(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			c.BGPAdvertisements[0] = &config.BGPAdvertisement{Name: "all", Pools: []string{"pool"}, Length4: 32, Length6: 128,
				Nodes: []labels.Selector{labels.SelectorFromSet(labels.Set{"rack": "a"})}}
		})
		o.serve("default/web", "10.0.0.1", "node-b")
		close(o.synced)
		o.expect(t, "at first", "10.0.0.1/32")
		o.DeleteNode("node-a")
		o.expect(t, "without its Node")
	})
}

// TestManyMovesAreFewLooks: what changes all the time on a busy node is looked at every now and then, and once more at the end.
func TestManyMovesAreFewLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := make(chan struct{}, 1), make(chan struct{}, 1)
		go relayPaced(t.Context(), to, from, nil)
		looks, last := 0, time.Time{}
		go func() {
			for {
				select {
				case <-to:
					looks, last = looks+1, time.Now()
				case <-t.Context().Done():
					return
				}
			}
		}()
		begin := time.Now()
		for range 1000 {
			select {
			case from <- struct{}{}:
			default:
			}
			time.Sleep(time.Millisecond)
		}
		end := time.Now()
		time.Sleep(movePause)
		synctest.Wait()
		if most := 1 + int(end.Sub(begin)/movePause) + 1; looks > most || looks < most-2 {
			t.Errorf("%d looks, want %d", looks, most)
		}
		if last.Before(end.Add(-time.Millisecond)) {
			t.Errorf("the last look was %v before the last change", end.Sub(last))
		}
	})
}

// TestNothingFlaps: what does not concern a session or a route leaves them as they are.
func TestNothingFlaps(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.serve("default/web", "10.0.0.1", "node-b")
		close(o.synced)
		synctest.Wait()
		before := o.engine.last()
		o.serve("default/other", "10.0.0.2", "node-b")
		o.reconfigure(func(c *config.Config) {
			c.BGPPeers = append(c.BGPPeers, &config.BGPPeer{Name: "zzz", Address: netip.MustParseAddr("192.0.2.2"), Port: 179, LocalASN: 64500, PeerASN: 64513})
			c.BGPAdvertisements[0] = &config.BGPAdvertisement{Name: "all", Pools: []string{"pool"}, Length4: 32, Length6: 128, Peers: []string{"tor"}}
		})
		o.SetNode(Node{Name: "node-b"})
		synctest.Wait()
		change := bgp.Diff(before, o.engine.last())
		if len(change.Peers) != 1 || len(change.GonePeers) != 0 || len(change.Routes) != 1 || len(change.GoneRoutes) != 0 {
			t.Errorf("peers %v, gone %v, routes %v, gone %v; want one new peer and one new route", change.Peers, change.GonePeers, change.Routes, change.GoneRoutes)
		}
		time.Sleep(greetPatience + time.Second) // no session of this engine ever comes up
		synced := o.engine.times()
		time.Sleep(30 * time.Second)
		if o.engine.times() != synced {
			t.Error("the engine is told though nothing happens")
		}
	})
}

func TestRoutersAreToldBeforeRoutesGo(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			promised, restarts := tor(), tor()
			promised.ShutdownTime = 3 * time.Second
			restarts.Name, restarts.Address, restarts.ShutdownTime, restarts.RestartTime = "zzz", netip.MustParseAddr("192.0.2.2"), 3*time.Second, time.Minute
			c.BGPPeers = []*config.BGPPeer{promised, restarts}
		})
		o.serve("default/web", "10.0.0.1", "node-b")
		close(o.synced)
		o.expect(t, "at first", "10.0.0.1/32")

		o.SetNode(Node{Name: "node-a", Excluded: true})
		if c := o.routes("tor")["10.0.0.1/32"]; !slices.Contains(c, bgp.GracefulShutdown) {
			t.Errorf("excluded, the peer is told %v", c)
		}
		time.Sleep(4 * time.Second)
		o.expect(t, "a while after it was excluded")
		o.SetNode(Node{Name: "node-a"})
		if c, ok := o.routes("tor")["10.0.0.1/32"]; !ok || len(c) > 0 {
			t.Errorf("no longer excluded, the peer is told %v (%t)", c, ok)
		}

		o.stop()
		if c := o.routes("tor")["10.0.0.1/32"]; !slices.Contains(c, bgp.GracefulShutdown) {
			t.Errorf("leaving, the peer is told %v", c)
		}
		if c, ok := o.routes("zzz")["10.0.0.1/32"]; !ok || len(c) > 0 {
			t.Errorf("leaving, the peer that keeps routes over a restart is told %v (%t)", c, ok)
		}
		select {
		case <-o.done:
			t.Error("it left at once")
		default:
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		select {
		case <-o.done:
		default:
			t.Error("it does not leave")
		}
	})
}

// TestLeavingWhileExcluded: the speaker keeps its promise to say before that routes go, and has them gone when it has left, also with peers
// that would keep them over a restart.
func TestLeavingWhileExcluded(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			p := tor()
			p.ShutdownTime, p.RestartTime = 3*time.Second, time.Minute
			other := tor()
			other.Name, other.Address = "zzz", netip.MustParseAddr("192.0.2.2")
			c.BGPPeers = []*config.BGPPeer{p, other}
		})
		o.serve("default/web", "10.0.0.1", "node-b")
		close(o.synced)
		o.expect(t, "at first", "10.0.0.1/32")
		o.SetNode(Node{Name: "node-a", Excluded: true})
		o.expect(t, "excluded", "10.0.0.1/32")
		time.Sleep(time.Second)
		o.stop()
		if c := o.routes("tor")["10.0.0.1/32"]; !slices.Contains(c, bgp.GracefulShutdown) {
			t.Errorf("leaving, the peer is told %v", c)
		}
		o.SetNode(Node{Name: "node-a"})
		synctest.Wait()
		if routes := o.routes("zzz"); len(routes) > 0 {
			t.Errorf("leaving, the peer that was promised nothing is told %v", routes)
		}
		begin := time.Now()
		<-o.done
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("it took %v to leave, want what was left of the 3 s", took)
		}
		o.expect(t, "left")
	})
}

// TestNobodyToTell: a speaker that nobody waits for leaves at once.
func TestNobodyToTell(t *testing.T) {
	for name, prepare := range map[string]func(*office, *config.BGPPeer){
		"no routes": func(*office, *config.BGPPeer) {},
		"the peer keeps routes over a restart": func(o *office, p *config.BGPPeer) {
			p.RestartTime = time.Minute
			o.serve("default/web", "10.0.0.1", "node-b")
		},
		"nothing was told yet": func(o *office, _ *config.BGPPeer) {
			o.gate.close(netip.MustParseAddr("10.0.0.2"))
			o.serve("default/web", "10.0.0.1", "node-b")
			o.serve("default/slow", "10.0.0.2", "node-b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *office) {
				p := tor()
				p.ShutdownTime = 20 * time.Second
				prepare(o, p)
				o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{p} })
				close(o.synced)
				synctest.Wait()
				synced := o.engine.times()
				o.stop()
				synctest.Wait()
				select {
				case <-o.done:
				default:
					t.Error("it does not leave")
				}
				if synced == 0 && o.engine.times() > 0 {
					t.Error("a speaker that leaves begins to announce")
				}
			})
		})
	}
}
