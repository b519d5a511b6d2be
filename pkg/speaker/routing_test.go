package speaker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/bgp/place"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// office is a node with routers: everything around a routing.
type office struct {
	*inventory
	cfg     *config.Config
	engine  *fakeEngine
	gate    *addressGate
	bfd     *fakeBFD
	network *fakeNetwork
	report  *fakeSessions
	downs   *downs
	synced  chan struct{}
	stop    context.CancelFunc
	done    chan struct{}
}

// inOffice runs a test with a routing of node-a, which has one peer and may announce one pool, under synctest's clock.
func inOffice(t *testing.T, f func(*testing.T, *office)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &office{
			inventory: newInventory(func() {}),
			engine:    &fakeEngine{changed: make(chan struct{}, 1), resets: map[string]string{}},
			gate:      &addressGate{changed: make(chan struct{}, 1), closed: map[netip.Addr]bool{}},
			bfd:       &fakeBFD{},
			network:   &fakeNetwork{changed: make(chan struct{}, 1), own: []netip.Addr{netip.MustParseAddr("198.51.100.11")}},
			report:    &fakeSessions{bgp: map[string]*v1beta1.BGPAnnouncement{}},
			synced:    make(chan struct{}),
			done:      make(chan struct{}),
		}
		o.downs = newDowns(o.engine)
		o.cfg = &config.Config{
			Pools:             []*config.Pool{{Name: "pool", Ranges: ranges("10.0.0.0/16", "2001:db8::/112")}},
			BGPAdvertisements: []*config.BGPAdvertisement{{Name: "all", Pools: []string{"pool"}, Length4: 32, Length6: 128}},
			BGPPeers:          []*config.BGPPeer{tor()},
		}
		o.SetNode(Node{Name: "node-a", Labels: labels.Set{"rack": "a"}})
		r := newRouting(o.inventory, RoutingConfig{
			Node: "node-a", NodeIP: netip.MustParseAddr("2001:db8::11"), Engine: o.engine, BFD: o.bfd, Downs: o.downs, Network: o.network,
			Dataplane: o.gate, Report: o.report, Synced: o.synced, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(context.Background())
		o.stop = cancel
		o.SetConfig(o.cfg)
		go func() {
			defer close(o.done)
			r.Run(ctx)
		}()
		defer func() {
			cancel()
			<-o.done
		}()
		f(t, o)
	})
}

func tor() *config.BGPPeer {
	return &config.BGPPeer{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), Port: 179, LocalASN: 64500, PeerASN: 64512}
}

// reconfigure changes a copy of the configuration.
func (o *office) reconfigure(change func(*config.Config)) {
	cfg := *o.cfg
	cfg.BGPPeers, cfg.BGPAdvertisements = slices.Clone(cfg.BGPPeers), slices.Clone(cfg.BGPAdvertisements)
	change(&cfg)
	o.cfg = &cfg
	o.SetConfig(&cfg)
}

func (o *office) serve(name, addr string, nodes ...string) {
	o.SetEndpoints(name+"-1", Endpoints{Service: name, Serving: nodes, Here: 1})
	o.SetService(Service{Name: name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
}

// routes returns what the peer was told last, each prefix with its communities.
func (o *office) routes(peer string) map[string][]bgp.Community {
	synctest.Wait()
	o.engine.mu.Lock()
	defer o.engine.mu.Unlock()
	routes := map[string][]bgp.Community{}
	for _, r := range o.engine.desired.Routes {
		for _, p := range r.Paths {
			if slices.Contains(p.Peers, peer) {
				routes[r.Prefix.String()] = p.Attributes.Communities
			}
		}
	}
	return routes
}

func (o *office) expect(t *testing.T, why string, want ...string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(o.routes("tor"))); !slices.Equal(got, want) {
		t.Errorf("%s: the peer is told %v, want %v", why, got, want)
	}
}

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

func TestPasswordsFromSecrets(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) { p := tor(); p.PasswordSecret = "tor"; c.BGPPeers = []*config.BGPPeer{p} })
		o.serve("default/web", "10.0.0.1", "node-b")
		close(o.synced)
		o.expect(t, "without the Secret")
		if s := o.report.session("tor"); s.State != refusedState || s.Reason != string(NoPassword) || !strings.Contains(s.LastError, "tor") {
			t.Errorf("reported as %+v", s)
		}
		o.setPassword("", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Data: map[string][]byte{"password": []byte("hidden")}})
		o.expect(t, "with the Secret", "10.0.0.1/32")
		if p := o.engine.last().Peers; len(p) != 1 || p[0].Password != "hidden" {
			t.Error("the engine does not have the password")
		}
	})
}

func TestPeersAreFound(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			c.BGPPeers = []*config.BGPPeer{
				{Name: "annotated", Annotation: "example.com/tor", Port: 179, LocalASN: 64500, PeerASN: 64512},
				{Name: "gateway", Gateway: "IPv6", Port: 179, LocalASN: 64500, PeerASN: 64512},
				{Name: "unnumbered", Interface: "eth7", Port: 179, LocalASN: 64500, PeerASN: 64512},
			}
		})
		close(o.synced)
		addresses := func() map[string]string {
			synctest.Wait()
			all := map[string]string{}
			for _, p := range o.engine.last().Peers {
				all[p.Name] = p.Address.String()
			}
			return all
		}
		if got := addresses(); len(got) != 0 {
			t.Errorf("sessions with %v, which are not known", got)
		}
		for _, nowhere := range []string{"tor", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "fe80::1", "::ffff:0.0.0.0"} {
			o.SetNode(Node{Name: "node-a", Annotations: map[string]string{"example.com/tor": nowhere}})
			if got := addresses(); len(got) != 0 {
				t.Errorf("sessions with %v, annotated with %s", got, nowhere)
			}
			if s := o.report.session("annotated"); s.Reason != string(announce.NoPeerAddress) {
				t.Errorf("annotated with %s: %+v", nowhere, s)
			}
		}
		o.SetNode(Node{Name: "node-a", Annotations: map[string]string{"example.com/tor": "::ffff:192.0.2.5"}})
		if got := addresses(); !maps.Equal(got, map[string]string{"annotated": "192.0.2.5"}) {
			t.Errorf("sessions with %v", got)
		}
		o.network.set(func(n *fakeNetwork) {
			n.gateway6 = netip.MustParseAddr("fe80::1%eth0")
			n.neighbours = map[string]netip.Addr{"eth7": netip.MustParseAddr("fe80::7%eth7")}
		})
		if got := addresses(); !maps.Equal(got, map[string]string{"annotated": "192.0.2.5", "gateway": "fe80::1%eth0", "unnumbered": "fe80::7%eth7"}) {
			t.Errorf("sessions with %v", got)
		}
		if p := o.engine.last().Peers; !p[2].IPv4 || !p[2].IPv6 || p[1].IPv4 {
			t.Errorf("families: %+v", p)
		}
	})
}

// TestNetworkThatIsGoneForAMoment: sessions stay as they are while the kernel knows no way to their peers.
func TestNetworkThatIsGoneForAMoment(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		profile := &config.BFDProfile{Name: "quick", Transmit: 100 * time.Millisecond, Receive: 100 * time.Millisecond, Multiplier: 3}
		o.reconfigure(func(c *config.Config) {
			near, far := tor(), tor()
			near.Name, near.Address, near.Gateway, near.BFD = "near", netip.Addr{}, "IPv4", profile
			far.Name, far.Address, far.PeerASN, far.DualStack, far.BFD = "far", netip.MustParseAddr("203.0.113.1"), far.LocalASN, true, profile
			c.BGPPeers = []*config.BGPPeer{far, near}
		})
		here := place.Place{Interface: "eth0", NextHop4: netip.MustParseAddr("192.0.2.11"), NextHop6: netip.MustParseAddr("2001:db8::11")}
		there := here
		there.Routed = true
		up := func(n *fakeNetwork) {
			n.gateway4 = netip.MustParseAddr("192.0.2.1")
			n.places = map[netip.Addr]place.Place{n.gateway4: here, netip.MustParseAddr("203.0.113.1"): there}
		}
		o.network.set(up)
		close(o.synced)
		time.Sleep(watchPatience)
		synctest.Wait()
		before, watched := o.engine.last(), o.bfd.last()
		if len(before.Peers) != 2 || before.Peers[0].NextHop6 != here.NextHop6 || len(watched) != 2 || !watched[0].Multihop || watched[1].Multihop {
			t.Fatalf("peers %+v, BFD %+v", before.Peers, watched)
		}
		for what, change := range map[string]func(*fakeNetwork){
			"the interface is down": func(n *fakeNetwork) { n.gateway4, n.places = netip.Addr{}, nil },
			"there is a way around": func(n *fakeNetwork) {
				n.gateway4, n.places = netip.Addr{}, map[netip.Addr]place.Place{netip.MustParseAddr("192.0.2.1"): there}
			},
			"it is back": up,
		} {
			o.network.set(change)
			synctest.Wait()
			if is := o.engine.last(); !slices.Equal(is.Peers, before.Peers) {
				t.Errorf("%s: peers %+v, want %+v", what, is.Peers, before.Peers)
			}
			if is := o.bfd.last(); !slices.Equal(is, watched) {
				t.Errorf("%s: BFD %+v, want %+v", what, is, watched)
			}
		}
		o.network.set(func(n *fakeNetwork) { n.gateway4 = netip.MustParseAddr("192.0.2.2") })
		synctest.Wait()
		if is := o.engine.last().Peers; is[1].Address != netip.MustParseAddr("192.0.2.2") {
			t.Errorf("with another gateway: %+v", is)
		}
	})
}

// TestRouterIDStays: another one would end all sessions.
func TestRouterIDStays(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		identified := tor()
		identified.Name, identified.Gateway, identified.Address, identified.RouterID = "identified", "IPv6", netip.Addr{}, netip.MustParseAddr("10.9.9.9")
		identified.PasswordSecret = "identified"
		o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{tor()} })
		close(o.synced)
		expect := func(why, want string) {
			t.Helper()
			synctest.Wait()
			if got := o.engine.last().RouterID.String(); got != want {
				t.Errorf("%s: the router ID is %s, want %s", why, got, want)
			}
		}
		expect("at first", "198.51.100.11")
		o.network.set(func(n *fakeNetwork) { n.own = append([]netip.Addr{netip.MustParseAddr("10.1.1.1")}, n.own...) })
		expect("with another address", "198.51.100.11")
		o.network.set(func(n *fakeNetwork) { n.own = nil })
		expect("without addresses", "198.51.100.11")
		o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{identified, tor()} })
		expect("with a peer that gives one, but is not found", "10.9.9.9")
		o.network.set(func(n *fakeNetwork) { n.gateway6 = netip.MustParseAddr("fe80::1%eth0") })
		expect("with a peer that gives one, but has no password", "10.9.9.9")
		o.setPassword("", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "identified"}, Data: map[string][]byte{"password": []byte("hidden")}})
		expect("with a peer that gives one", "10.9.9.9")
		o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{tor()} })
		expect("as at first", "198.51.100.11")
	})
}

func TestBFDEndsTheSession(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			p := tor()
			p.BFD = &config.BFDProfile{Name: "quick", Transmit: 100 * time.Millisecond, Receive: 100 * time.Millisecond, Multiplier: 3}
			c.BGPPeers = []*config.BGPPeer{p}
		})
		close(o.synced)
		synctest.Wait()
		if len(o.bfd.last()) != 0 {
			t.Fatalf("BFD before BGP: %v", o.bfd.last())
		}
		time.Sleep(watchPatience)
		synctest.Wait()
		if len(o.bfd.last()) != 1 {
			t.Fatalf("BFD sessions: %v", o.bfd.last())
		}
		s := o.bfd.last()[0]
		for _, st := range []struct {
			status bfd.Status
			reset  bool
		}{
			{bfd.Status{Session: s, State: bfd.Up}, false},
			{bfd.Status{Session: s, State: bfd.Down, Diagnostic: bfd.NeighborSignaledDown}, false}, // the peer's AdminDown is no failure
			{bfd.Status{Session: s, State: bfd.Up}, false},
			{bfd.Status{Session: s, State: bfd.Down, Diagnostic: bfd.DetectionTimeExpired, Failed: true}, true},
		} {
			o.downs.Changed(st.status)
			synctest.Wait()
			if why, reset := o.engine.resets["tor"]; reset != st.reset || reset && !strings.Contains(why, "detection time") {
				t.Errorf("after %+v: reset %t (%s)", st.status, reset, why)
			}
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

// addressGate is a dataplane that carries all addresses but the closed ones.
type addressGate struct {
	changed chan struct{}

	settled atomic.Bool

	mu     sync.Mutex
	closed map[netip.Addr]bool
}

func (g *addressGate) Settled() bool { return g.settled.Load() }

func (g *addressGate) Carries(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.closed[a]
}

func (g *addressGate) Changed() <-chan struct{} { return g.changed }
func (g *addressGate) SetDown([]string)         {}
func (g *addressGate) open(a netip.Addr)        { g.set(a, false) }
func (g *addressGate) close(a netip.Addr)       { g.set(a, true) }

func (g *addressGate) set(a netip.Addr, closed bool) {
	g.mu.Lock()
	g.closed[a] = closed
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// fakeEngine is a bgp.Engine that notes what it is told.
type fakeEngine struct {
	changed chan struct{}

	mu      sync.Mutex
	desired bgp.Desired
	synced  int
	resets  map[string]string
}

func (e *fakeEngine) Sync(d bgp.Desired) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.desired = d
	e.synced++
}

func (e *fakeEngine) times() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.synced
}

func (e *fakeEngine) last() bgp.Desired {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.desired
}

func (e *fakeEngine) Reset(peer, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resets[peer] = why
}

func (e *fakeEngine) Sessions() []bgp.Session  { return nil }
func (e *fakeEngine) Changed() <-chan struct{} { return e.changed }

// fakeBFD is a BFD that notes what it is told.
type fakeBFD struct {
	mu       sync.Mutex
	sessions []bfd.Session
}

func (b *fakeBFD) Sync(s []bfd.Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions = s
}

func (b *fakeBFD) last() []bfd.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions
}

func (b *fakeBFD) Statuses() []bfd.Status { return nil }

// fakeNetwork is a Network that a test changes.
type fakeNetwork struct {
	changed chan struct{}

	mu         sync.Mutex
	own        []netip.Addr
	gateway4   netip.Addr
	gateway6   netip.Addr
	neighbours map[string]netip.Addr
	places     map[netip.Addr]place.Place
}

func (n *fakeNetwork) set(change func(*fakeNetwork)) {
	n.mu.Lock()
	change(n)
	n.mu.Unlock()
	n.changed <- struct{}{}
}

func (n *fakeNetwork) Locate(peer netip.Addr, _ string) (place.Place, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, ok := n.places[peer]; ok {
		return at, nil
	}
	return place.Place{}, errors.New("no route")
}

func (n *fakeNetwork) Gateways() (v4, v6 netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gateway4, n.gateway6
}

func (n *fakeNetwork) Own() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.own
}

func (n *fakeNetwork) Neighbours([]string) map[string]netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.neighbours
}

func (n *fakeNetwork) Faults() map[string]string { return nil }

func (n *fakeNetwork) Changed() <-chan struct{} { return n.changed }

// fakeSessions is a RoutingReporter that keeps the latest.
type fakeSessions struct {
	mu       sync.Mutex
	bgp      map[string]*v1beta1.BGPAnnouncement
	sessions []v1beta1.BGPSessionStatus
}

func (f *fakeSessions) SetBGP(service string, a *v1beta1.BGPAnnouncement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bgp[service] = a
}

func (f *fakeSessions) told(service string) *v1beta1.BGPAnnouncement {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bgp[service]
}

func (f *fakeSessions) SetSessions(all []v1beta1.BGPSessionStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions = all
}

func (f *fakeSessions) session(peer string) v1beta1.BGPSessionStatus {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		if s.Peer == peer {
			return s
		}
	}
	return v1beta1.BGPSessionStatus{}
}
