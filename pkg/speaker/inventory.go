package speaker

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Service is what the speaker wants to know of a Service of type LoadBalancer and of our class.
type Service struct {
	Name   string // namespace/name
	Labels labels.Set
	Shared bool // it allows others to share its address
	Local  bool // externalTrafficPolicy is Local
	// Addrs are those in status.loadBalancer.ingress.
	Addrs []netip.Addr
	// Complaint is the message of its condition steelyard.io/Announced when that is False, and ComplaintReason the reason.
	Complaint       string
	ComplaintReason announce.Reason
}

// Endpoints is what the speaker wants to know of an EndpointSlice.
type Endpoints struct {
	Service string   // namespace/name
	Serving []string // nodes with an endpoint that serves, sorted; "" for endpoints without a node
	Here    int      // how many serve on this node
}

// Node is what the speaker wants to know of a Node.
type Node struct {
	Name               string
	Labels             labels.Set
	Excluded           bool
	NetworkUnavailable bool
	Annotations        map[string]string // of this node only
}

// inventory is the speaker's picture of the API's objects, and what in it waits to be looked at by the two that decide: the Speaker, on what
// is announced on the local network, and its routing, on what routers are told. It is safe for concurrent use; what they read, they read
// with the lock held.
type inventory struct {
	mu        sync.Mutex
	config    *config.Config
	services  map[string]*service
	byAddr    map[netip.Addr][]*service
	nodes     map[string]Node
	slices    map[string]Endpoints // by namespace/name of the slice
	ofSvc     map[string][]string  // the names of a Service's slices
	passwords map[string]string    // of BGPPeers, by the Secret's name; never to be logged

	dirty        map[string]*service     // to be decided anew
	orphans      map[netip.Addr]struct{} // lost their last Service
	outlived     map[string]struct{}     // names of Services with a complaint that may be about nothing any more
	nodesChanged bool
	rerouted     map[string]struct{} // names of Services to be routed anew, or gone
	wakers       []func()            // of those who decide
}

// service is a Service with what follows from the rest of the inventory.
type service struct {
	Service
	spec announce.Service
	// addrs are those that a pool owns, sorted, and pools the names of their pools.
	addrs []netip.Addr
	pools []string

	// What another node could change, as of the latest decision. restless: a node that becomes usable. choosy: a node that gets other
	// labels or interfaces.
	restless, choosy bool
	// witnesses are nodes that may announce its addresses by BGP, where nobody may on the local network.
	witnesses []string
	// complained is when this node last told users that nobody may announce it; zero when that is over.
	complained time.Time
}

func newInventory(wake func()) *inventory {
	return &inventory{
		wakers:    []func(){wake},
		rerouted:  map[string]struct{}{},
		config:    &config.Config{},
		services:  map[string]*service{},
		byAddr:    map[netip.Addr][]*service{},
		nodes:     map[string]Node{},
		slices:    map[string]Endpoints{},
		ofSvc:     map[string][]string{},
		passwords: map[string]string{},
		dirty:     map[string]*service{},
		orphans:   map[netip.Addr]struct{}{},
		outlived:  map[string]struct{}{},
	}
}

// SetService takes a Service that is new or has changed.
func (v *inventory) SetService(s Service) {
	v.mu.Lock()
	defer v.mu.Unlock()
	svc := v.services[s.Name]
	if svc == nil {
		svc = &service{}
		v.services[s.Name] = svc
	} else if svc.Service.equal(s) {
		return
	}
	svc.Service = s
	svc.spec = announce.Service{Labels: s.Labels, Shared: s.Shared, Local: s.Local}
	svc.spec.Serving, svc.spec.LocalEndpoints = v.serving(s.Name)
	v.index(svc)
	v.touch(svc)
}

// DeleteService forgets a Service that is gone, or is no longer ours to announce.
func (v *inventory) DeleteService(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	svc := v.services[name]
	if svc == nil {
		return
	}
	svc.Addrs = nil
	v.index(svc)
	delete(v.services, name)
	delete(v.dirty, name)
	v.rerouted[name] = struct{}{}
	v.wake()
}

// SetEndpoints takes an EndpointSlice that is new or has changed.
func (v *inventory) SetEndpoints(slice string, e Endpoints) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, ok := v.slices[slice]; ok {
		if old.Service == e.Service && old.Here == e.Here && slices.Equal(old.Serving, e.Serving) {
			return
		}
		v.dropSlice(slice)
	}
	v.slices[slice] = e
	v.ofSvc[e.Service] = append(v.ofSvc[e.Service], slice)
	v.servingChanged(e.Service)
}

// DeleteEndpoints forgets an EndpointSlice.
func (v *inventory) DeleteEndpoints(slice string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dropSlice(slice)
}

// SetNode takes a Node that is new or has changed.
func (v *inventory) SetNode(n Node) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, ok := v.nodes[n.Name]; ok && old.Excluded == n.Excluded && old.NetworkUnavailable == n.NetworkUnavailable &&
		maps.Equal(old.Labels, n.Labels) && maps.Equal(old.Annotations, n.Annotations) {
		return
	}
	v.nodes[n.Name] = n
	v.nodesChanged = true
	v.wake()
}

// DeleteNode forgets a Node.
func (v *inventory) DeleteNode(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.nodes, name)
	v.nodesChanged = true
	v.wake()
}

// SetConfig takes a changed configuration.
func (v *inventory) SetConfig(c *config.Config) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.config = c
	for _, svc := range v.services {
		v.index(svc)
		v.touch(svc)
	}
	v.wake()
}

func (v *inventory) dropSlice(slice string) {
	e, ok := v.slices[slice]
	if !ok {
		return
	}
	delete(v.slices, slice)
	if v.ofSvc[e.Service] = without(v.ofSvc[e.Service], slice); len(v.ofSvc[e.Service]) == 0 {
		delete(v.ofSvc, e.Service)
	}
	v.servingChanged(e.Service)
}

func (v *inventory) servingChanged(name string) {
	svc := v.services[name]
	if svc == nil {
		return
	}
	serving, here := v.serving(name)
	if here != svc.spec.LocalEndpoints {
		svc.spec.LocalEndpoints = here
		v.reroute(name)
	}
	if !slices.Equal(serving, svc.spec.Serving) {
		svc.spec.Serving = serving
		v.touch(svc)
	}
}

// serving returns the nodes that have endpoints which serve, and how many this node has.
func (v *inventory) serving(name string) (nodes []string, here int) {
	names := v.ofSvc[name]
	if len(names) == 1 {
		e := v.slices[names[0]]
		return e.Serving, e.Here
	}
	for _, slice := range names {
		nodes = append(nodes, v.slices[slice].Serving...)
		here += v.slices[slice].Here
	}
	slices.Sort(nodes)
	return slices.Compact(nodes), here
}

// index brings svc.addrs and byAddr up to date.
func (v *inventory) index(svc *service) {
	old := svc.addrs
	svc.addrs, svc.pools = nil, nil
	addrs := slices.Clone(svc.Addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, a := range slices.Compact(addrs) {
		if pool := v.config.PoolOf(a); pool != nil {
			svc.addrs, svc.pools = append(svc.addrs, a), append(svc.pools, pool.Name)
		}
	}
	if svc.Complaint != "" && len(svc.addrs) == 0 {
		v.outlived[svc.Name] = struct{}{}
	}
	for _, a := range old {
		if slices.Contains(svc.addrs, a) {
			continue
		}
		v.byAddr[a] = without(v.byAddr[a], svc)
		for _, sharer := range v.byAddr[a] {
			v.touch(sharer)
		}
		if len(v.byAddr[a]) == 0 {
			delete(v.byAddr, a)
			v.orphans[a] = struct{}{}
		}
	}
	for _, a := range svc.addrs {
		if !slices.Contains(v.byAddr[a], svc) {
			v.byAddr[a] = append(v.byAddr[a], svc)
			delete(v.orphans, a)
		}
	}
}

// wake has those who decide look what there is to do.
func (v *inventory) wake() {
	for _, wake := range v.wakers {
		wake()
	}
}

func (v *inventory) touch(svc *service) {
	v.dirty[svc.Name] = svc
	v.reroute(svc.Name)
}

func (v *inventory) reroute(service string) {
	v.rerouted[service] = struct{}{}
	v.wake()
}

// touchAddr has everything that uses the address looked at.
func (v *inventory) touchAddr(a netip.Addr) {
	if len(v.byAddr[a]) == 0 {
		v.orphans[a] = struct{}{}
	}
	for _, svc := range v.byAddr[a] {
		v.dirty[svc.Name] = svc
	}
}

// group is what one node has to announce as a whole: Services that share addresses, directly or through others, and all their
// addresses, sorted.
type group struct {
	services []*service
	addrs    []netip.Addr
}

// takeDirty returns the groups to be decided, ordered by their first address, so that speakers that decide on many do it in one order.
func (v *inventory) takeDirty() []group {
	var groups []group
	seen := map[string]bool{}
	for name, svc := range v.dirty {
		if !seen[name] {
			if g := v.groupOf(svc, seen); len(g.addrs) > 0 {
				groups = append(groups, g)
			}
		}
	}
	clear(v.dirty)
	slices.SortFunc(groups, func(a, b group) int { return a.addrs[0].Compare(b.addrs[0]) })
	return groups
}

func (v *inventory) groupOf(first *service, seen map[string]bool) group {
	seen[first.Name] = true
	g := group{services: []*service{first}}
	for i := 0; i < len(g.services); i++ {
		for _, a := range g.services[i].addrs {
			if slices.Contains(g.addrs, a) {
				continue
			}
			g.addrs = append(g.addrs, a)
			for _, sharer := range v.byAddr[a] {
				if !seen[sharer.Name] {
					seen[sharer.Name] = true
					g.services = append(g.services, sharer)
				}
			}
		}
	}
	slices.SortFunc(g.addrs, netip.Addr.Compare)
	return g
}

func without[T comparable](all []T, one T) []T {
	return slices.DeleteFunc(all, func(t T) bool { return t == one })
}

func (s Service) equal(o Service) bool {
	return s.Shared == o.Shared && s.Local == o.Local && s.Complaint == o.Complaint && s.ComplaintReason == o.ComplaintReason &&
		maps.Equal(s.Labels, o.Labels) && slices.Equal(s.Addrs, o.Addrs)
}
