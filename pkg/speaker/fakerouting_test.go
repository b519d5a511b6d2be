package speaker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/labels"

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
func (n *fakeNetwork) Changed() <-chan struct{}  { return n.changed }

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
