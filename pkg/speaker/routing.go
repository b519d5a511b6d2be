package speaker

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// RoutingConfig is what routing needs.
type RoutingConfig struct {
	Node   string
	NodeIP netip.Addr
	// ListenPort is where passive peers connect to; 0 for none.
	ListenPort uint16
	Engine     bgp.Engine
	BFD        BFD
	Downs      *downs // whom BFD tells
	Network    Network
	Dataplane  Dataplane // nil: another program carries the traffic, and routes are announced without asking
	Report     RoutingReporter
	Synced     <-chan struct{} // closed once the inventory holds all objects of the API
	Log        *slog.Logger
}

// RoutingReporter shows users how things stand. Its methods do not wait for the API.
type RoutingReporter interface {
	// SetBGP tells what routers are told of a Service; nil for nothing.
	SetBGP(service string, announced *v1beta1.BGPAnnouncement)
	// SetSessions tells how all of this node's sessions stand.
	SetSessions([]v1beta1.BGPSessionStatus)
}

// routing tells routers which addresses this node carries: it watches the inventory, decides with package announce, and has a bgp.Engine
// do it. It does not depend on the other speakers: every node that may announce an address does.
type routing struct {
	*inventory
	config RoutingConfig
	log    *slog.Logger
	woken  chan struct{}

	// The rest belongs to the loop, which alone writes it, and with the inventory's lock what others read with it: who announces what.
	node     announce.Node
	parsed   *config.Config
	sessions sessions
	watches  watches
	greeting greeting
	table    *announce.RouteTable
	routed   map[string]routed   // by Service
	gated    map[string]struct{} // Services with addresses that wait for this node's rules
	// uncarried is since when this node's rules for an announced address are missing. Services that share one are looked at one by one.
	uncarried map[announce.RouteKey]time.Time
	// shutUntil is until when routes carry GRACEFUL_SHUTDOWN, since the node is to announce nothing any more: because it was excluded, or
	// because the speaker leaves.
	shutUntil time.Time
	excluding bool
	leaving   bool
	announced bool      // the engine has been told
	patience  time.Time // when it is told whatever is missing
}

// routed is what the table has of a Service.
type routed struct {
	addrs   []netip.Addr // that have contributions
	leftOut []string     // BGPAdvertisements that contradict older ones
}

// newRouting returns a routing of the inventory that does nothing until it is run.
func newRouting(v *inventory, c RoutingConfig) *routing {
	r := &routing{
		inventory: v, config: c, log: c.Log, woken: make(chan struct{}, 1),
		table: announce.NewRouteTable(), routed: map[string]routed{}, gated: map[string]struct{}{}, uncarried: map[announce.RouteKey]time.Time{},
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wakers = append(v.wakers, r.wakeUp)
	return r
}

func (r *routing) wakeUp() {
	nudge(r.woken)
}

// Ready says what a starting speaker waits for until routers have been told.
func (r *routing) Ready() error { return r.greeting.ready() }

// Run has routes announced until ctx is done. Then it has peers that were promised so prefer other nodes, and returns; the engine is
// left as it is.
func (r *routing) Run(ctx context.Context) {
	select {
	case <-r.config.Synced:
	case <-ctx.Done():
		return
	}
	r.patience = time.Now().Add(carryPatience)
	var gate <-chan struct{}
	if r.config.Dataplane != nil {
		gate = r.config.Dataplane.Changed()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	moved := true // where peers are may have changed
	for {
		next := r.pass(time.Now(), moved)
		moved = false
		if r.leaving && !r.excluding && (!r.announced || !time.Now().Before(r.shutUntil)) {
			return
		}
		timer.Reset(time.Until(next))
		select {
		case <-stop:
			stop = nil
			r.set(func() { r.leaving = true })
			if !r.excluding {
				r.shut(time.Now())
			}
		case <-r.woken:
		case <-gate:
			r.gateMoved()
		case <-r.config.Network.Changed():
			moved = true
		case <-r.config.Engine.Changed():
		case <-r.config.Downs.changed:
		case <-timer.C:
		}
	}
}

// pass does all that is to be done now, and returns when to come back.
func (r *routing) pass(now time.Time, moved bool) time.Time {
	if r.follow(now, moved) {
		r.rerouteAll()
	}
	r.mu.Lock()
	for key, since := range r.uncarried {
		if !now.Before(since.Add(repair)) {
			r.rerouted[key.Service] = struct{}{}
		}
	}
	for name := range r.rerouted {
		r.route(name, now)
	}
	clear(r.rerouted)
	r.mu.Unlock()

	if len(r.sessions.peers) == 0 && !r.announced {
		r.greeting.look(nil, nil, false, now)
		r.report(nil)
		return now.Add(housekeeping) // no engine is needed
	}
	if !r.announced {
		// A session that comes up tells its peer everything at once, and takes back what it does not tell. So that a restart takes nothing
		// back, it waits for the rules; not for those that the kernel does not get.
		if len(r.gated) > 0 && !r.config.Dataplane.Settled() && now.Before(r.patience) {
			r.greeting.look(r.sessions.peers, nil, false, now)
			return now.Add(settling)
		}
		r.announced = true
		r.log.Info("announcing to routers", "peers", len(r.sessions.peers), "routes", len(r.table.Routes()))
	}
	r.config.Engine.Sync(bgp.Desired{
		RouterID: r.sessions.routerID, ListenPort: r.config.ListenPort, Peers: r.sessions.peers, Routes: r.table.Routes(),
	})
	live := r.config.Engine.Sessions()
	r.config.BFD.Sync(r.watches.due(&r.sessions, live, now))
	r.greeting.look(r.sessions.peers, live, true, now)
	r.report(live)
	return r.nextTime(now)
}

func (r *routing) nextTime(now time.Time) time.Time {
	next := r.greeting.next(r.watches.next(now.Add(housekeeping)))
	for _, since := range r.uncarried {
		if t := since.Add(repair); t.Before(next) {
			next = t
		}
	}
	if now.Before(r.shutUntil) && r.shutUntil.Before(next) {
		next = r.shutUntil
	}
	return next
}

// follow finds out which sessions this node has, if something that matters to them may have changed, and tells whether all routes have to be
// looked at.
func (r *routing) follow(now time.Time, moved bool) bool {
	r.mu.Lock()
	n := r.nodes[r.config.Node]
	node := announce.Node{Name: r.config.Node, Labels: n.Labels, Excluded: n.Excluded, NetworkUnavailable: n.NetworkUnavailable}
	parsed, passwords := r.inventory.config, maps.Clone(r.passwords)
	r.mu.Unlock()

	if r.leaving {
		node.Excluded = r.node.Excluded // that is the next run's to heed
	}
	changed := parsed != r.parsed || !maps.Equal(node.Labels, r.node.Labels) ||
		node.Excluded != r.node.Excluded || node.NetworkUnavailable != r.node.NetworkUnavailable
	if node.Excluded && !r.node.Excluded && r.parsed != nil {
		r.set(func() { r.node, r.parsed, r.excluding = node, parsed, true })
		r.shut(now)
	}
	if r.excluding && (!now.Before(r.shutUntil) || !node.Excluded) {
		r.set(func() { r.excluding = false })
		changed = true
	}
	r.set(func() { r.node, r.parsed = node, parsed })
	if !changed && !moved && maps.Equal(passwords, r.sessions.passwords) && maps.Equal(n.Annotations, r.sessions.annotations) {
		return false
	}
	old := r.sessions
	resolved := resolve(&r.node, n.Annotations, parsed.BGPPeers, passwords, r.config, &old)
	r.set(func() { r.sessions = resolved })
	r.sessions.logNews(old, r.log)
	r.config.Downs.watch(r.sessions.bfd)
	return changed || !slices.Equal(old.told4, r.sessions.told4) || !slices.Equal(old.told6, r.sessions.told6)
}

func (r *routing) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// shut begins a planned withdrawal: peers that were promised so are told first that the routes are about to go (RFC 8326).
func (r *routing) shut(now time.Time) {
	r.shutUntil = now
	if len(r.table.Routes()) > 0 {
		for peer, d := range r.sessions.shutdown {
			if r.lasts(peer) {
				r.shutUntil = later(r.shutUntil, now.Add(d))
			}
		}
	}
	r.rerouteAll()
}

// lasts tells whether a peer's routes last until shutUntil, and carry GRACEFUL_SHUTDOWN. One that keeps them over a restart is not told of
// the restart.
func (r *routing) lasts(peer string) bool {
	return r.sessions.shutdown[peer] > 0 && (r.excluding || !r.sessions.restarts[peer])
}

func (r *routing) rerouteAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.services {
		r.rerouted[name] = struct{}{}
	}
}

// gateMoved looks again at the addresses that wait for rules, and at those that lost theirs.
func (r *routing) gateMoved() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.gated {
		r.rerouted[name] = struct{}{}
	}
	for name, was := range r.routed {
		for _, a := range was.addrs {
			if _, known := r.uncarried[announce.RouteKey{Service: name, Addr: a}]; known || !r.config.Dataplane.Carries(a) {
				r.rerouted[name] = struct{}{}
			}
		}
	}
}

// route finds out what routers are told of a Service.
func (r *routing) route(name string, now time.Time) {
	was := r.routed[name]
	delete(r.gated, name)
	var is routed
	var told v1beta1.BGPAnnouncement
	if svc := r.services[name]; svc != nil {
		for i, a := range svc.addrs {
			key := announce.RouteKey{Service: name, Addr: a}
			before := r.announced && slices.Contains(was.addrs, a)
			contributions, _ := r.contributions(svc, a, svc.pools[i])
			contributions = r.gate(key, before, contributions, now)
			if len(contributions) == 0 {
				continue
			}
			r.table.Set(key, contributions)
			is.addrs = append(is.addrs, a)
			for _, c := range contributions {
				told.Prefixes = append(told.Prefixes, c.Prefix.String())
				told.Peers = append(told.Peers, c.Peers...)
				is.leftOut = append(is.leftOut, c.LeftOut...)
			}
		}
	}
	for _, a := range was.addrs {
		if key := (announce.RouteKey{Service: name, Addr: a}); !slices.Contains(is.addrs, a) {
			r.table.Set(key, nil)
			delete(r.uncarried, key)
		}
	}
	if len(is.addrs) == 0 {
		delete(r.routed, name)
		r.config.Report.SetBGP(name, nil)
		return
	}
	slices.Sort(is.leftOut)
	if is.leftOut = slices.Compact(is.leftOut); len(is.leftOut) > 0 && !slices.Equal(is.leftOut, was.leftOut) {
		r.log.Warn("BGPAdvertisements that are left out for a Service: an older one gives the same peers another spec.localPref for the same prefix; make them equal",
			"service", name, "advertisements", strings.Join(is.leftOut, ", "))
	}
	r.routed[name] = is
	slices.Sort(told.Prefixes)
	slices.Sort(told.Peers)
	told.Prefixes, told.Peers = slices.Compact(told.Prefixes), slices.Compact(told.Peers)
	r.config.Report.SetBGP(name, &told)
}

// contributions returns what routers are told of an address while this node can carry it, or the reason why nothing.
func (r *routing) contributions(svc *service, a netip.Addr, pool string) ([]announce.Contribution, announce.Reason) {
	peers := r.sessions.told6
	if a.Is4() {
		peers = r.sessions.told4
	}
	node := r.node
	if r.excluding {
		node.Excluded = false // for as long as that takes
	}
	contributions, refused := announce.Routes(svc.spec, a, pool, r.parsed.BGPAdvertisements, &node, peers)
	if !r.excluding && !r.leaving {
		return contributions, refused
	}
	var last []announce.Contribution
	for _, c := range contributions {
		var promised, others []string
		for _, p := range c.Peers {
			if r.lasts(p) {
				promised = append(promised, p)
			} else {
				others = append(others, p)
			}
		}
		if len(others) > 0 && !r.excluding {
			o := c
			o.Peers = others
			last = append(last, o)
		}
		if len(promised) > 0 {
			c.Peers, c.Attributes = promised, announce.GracefulShutdown(c.Attributes)
			last = append(last, c)
		}
	}
	return last, refused
}

// gate lets through what this node has rules for. What is announced already stays for a while without, because rules that somebody removed
// are soon put back.
func (r *routing) gate(key announce.RouteKey, before bool, contributions []announce.Contribution, now time.Time) []announce.Contribution {
	if len(contributions) == 0 || r.config.Dataplane == nil || r.config.Dataplane.Carries(key.Addr) {
		delete(r.uncarried, key)
		return contributions
	}
	since, known := r.uncarried[key]
	switch {
	case !before:
	case !known:
		r.uncarried[key] = now
		return contributions
	case now.Before(since.Add(repair)):
		return contributions
	default:
		r.log.Warn("withdrawing from routers: this node has no rules for it", "address", key.Addr, "service", key.Service)
	}
	delete(r.uncarried, key)
	r.gated[key.Service] = struct{}{}
	return nil
}
