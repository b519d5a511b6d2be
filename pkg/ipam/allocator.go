// Package ipam decides which address a Service gets. Finding a free address or one to share, taking one that is asked for and giving
// one back cost the logarithm of the number of addresses in use, whatever the size of the pool.
package ipam

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Allocator knows who has which address. It keeps nothing that the statuses of the Services and pools don't say, so Remember and
// Adopt of these rebuild it. Several goroutines may use it at once, but not for the same Service.
type Allocator struct {
	mu       sync.Mutex
	pools    []*pool                               // by name
	spans    []span                                // by address
	holders  map[netip.Addr][]types.NamespacedName // by name
	services map[types.NamespacedName]*holding
}

// span is a range of a pool.
type span struct {
	config.Range
	pool *pool
}

// holding is the addresses of one Service. Nobody else gets those that are leaving, because its status may still have them:
// whoever starts anew from the statuses would find two Services with one address.
type holding struct {
	addrs   []netip.Addr // IPv4 first
	leaving []netip.Addr
	sharing Sharing
}

func (h *holding) all() []netip.Addr { return slices.Concat(h.addrs, h.leaving) }

// New returns an allocator without pools.
func New() *Allocator {
	return &Allocator{
		holders:  map[netip.Addr][]types.NamespacedName{},
		services: map[types.NamespacedName]*holding{},
	}
}

// SetPools replaces the pools and the reservations. An address stays with its Service as long as any of the pools gives it. SetPools
// tells whether anything has changed, and which Services have addresses that a change of a pool concerns, by name.
func (a *Allocator) SetPools(pools []*config.Pool, reservations []*config.Reservation) (changed bool, concerned []types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()

	before := map[string]*pool{}
	for _, p := range a.pools {
		before[p.Name] = p
	}
	changed = len(pools) != len(before)
	differs, fresh := map[*pool]bool{}, map[*pool]bool{}
	a.pools, a.spans = nil, nil
	for _, c := range pools {
		own := reservationsIn(c, reservations)
		p := before[c.Name]
		same := p != nil && p.sameConfig(c)
		if p != nil && p.sameAddresses(c, own) {
			p.Pool, p.reservations = c, own
		} else {
			old := p
			p = newPool(c, own)
			if old != nil {
				p.remember(old.released)
			}
			fresh[p] = true
		}
		differs[p] = !same
		changed = changed || !same || fresh[p]
		a.pools = append(a.pools, p)
		for _, r := range c.Ranges {
			a.spans = append(a.spans, span{r, p})
		}
	}
	slices.SortFunc(a.spans, func(x, y span) int { return x.From.Compare(y.From) })
	if !changed {
		return false, nil
	}
	for addr, users := range a.holders {
		if p := a.poolOf(addr); fresh[p] {
			p.take(addr)
			for i, user := range users {
				if !inNamespace(users[:i], user.Namespace) {
					p.enter(user.Namespace, addr)
				}
			}
			a.offer(addr)
		}
	}
	for service, h := range a.services {
		if slices.ContainsFunc(h.all(), func(addr netip.Addr) bool {
			p := a.poolOf(addr)
			return p == nil || differs[p]
		}) {
			concerned = append(concerned, service)
		}
	}
	slices.SortFunc(concerned, compareNames)
	return true, concerned
}

// Adopt records the addresses in the status of a Service, and returns those that another Service has already and does not share with
// it. Adopt the older Services first: they keep theirs.
func (a *Allocator) Adopt(service types.NamespacedName, sharing Sharing, current []netip.Addr) (taken []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.adopt(&Request{Service: service, Sharing: sharing.essence(), Current: current})
	for _, addr := range current {
		if !slices.Contains(a.holders[addr], service) {
			taken = append(taken, addr)
		}
	}
	return taken
}

// adopt makes the addresses in its status that it may have the Service's, the first of each family its own and the rest leaving.
func (a *Allocator) adopt(r *Request) *holding {
	h := a.services[r.Service]
	if h == nil {
		h = &holding{sharing: r.Sharing}
	}
	var adopted []netip.Addr
	for _, addr := range r.Current {
		if !slices.Contains(a.holders[addr], r.Service) && a.obstacle(r, addr) == nil {
			a.take(r.Service, addr)
			adopted = append(adopted, addr)
		}
	}
	h.leaving = append(h.leaving, adopted...)
	h.leaving = slices.DeleteFunc(h.leaving, func(addr netip.Addr) bool {
		p := a.poolOf(addr)
		ours := p != nil && p.gives(addr) && !hasFamily(h.addrs, FamilyOf(addr))
		if ours {
			h.addrs = sorted(append(h.addrs, addr))
		}
		return ours
	})
	a.keep(r.Service, h)
	for _, addr := range adopted {
		a.offer(addr)
	}
	return h
}

// Result is what Assign decided.
type Result struct {
	// Addrs is what the Service's status is to have, IPv4 first. A Service that waits keeps what it had, if it still may.
	Addrs  []netip.Addr
	Reason Reason
	// Message tells a person what the Service has, or why it waits and how to mend that.
	Message string
	// Lost tells which of its addresses the Service has no longer, and why; empty when there are none.
	Lost string
	// Eased: the Service shares its addresses in another way now, so that one that waits may have one of them.
	Eased bool
}

// Assign decides which addresses a Service has. It is idempotent, and what it gives is the Service's until Release or another
// Assign. What it takes away stays reserved until Settle.
func (a *Allocator) Assign(r Request) Result {
	a.mu.Lock()
	defer a.mu.Unlock()

	r.Sharing = r.Sharing.essence()
	h := a.adopt(&r)
	kept := slices.DeleteFunc(slices.Clone(h.addrs), func(addr netip.Addr) bool { return !a.mayKeep(&r, addr) })
	addrs, refused := a.plan(&r, kept)
	waits := refused != nil && len(addrs) == 0
	if waits {
		addrs = kept
	}
	touched := h.all()
	for _, addr := range h.addrs {
		if !slices.Contains(addrs, addr) {
			h.leaving = append(h.leaving, addr)
		}
	}
	h.leaving = slices.DeleteFunc(h.leaving, func(addr netip.Addr) bool { return slices.Contains(addrs, addr) })
	for _, addr := range addrs {
		if !slices.Contains(a.holders[addr], r.Service) {
			a.take(r.Service, addr)
			touched = append(touched, addr)
		}
	}
	h.addrs = addrs
	eased := len(addrs) > 0 && r.Sharing.Key != "" && !r.Sharing.equal(h.sharing)
	h.sharing = r.Sharing
	a.keep(r.Service, h)
	for _, addr := range touched {
		a.offer(addr)
	}
	res := a.result(&r, addrs, refused, waits)
	res.Eased = eased
	return res
}

// Settle frees the addresses that a Service has no longer, once they are not in its status. It tells whether there were any.
func (a *Allocator) Settle(service types.NamespacedName, status []netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.services[service]
	if h == nil {
		return false
	}
	stay := func(addr netip.Addr) bool { return slices.Contains(status, addr) }
	left := slices.DeleteFunc(slices.Clone(h.leaving), stay)
	h.leaving = slices.DeleteFunc(h.leaving, func(addr netip.Addr) bool { return !stay(addr) })
	a.free(service, left)
	a.keep(service, h)
	return len(left) > 0
}

// Release frees all addresses of a Service. It tells whether there were any.
func (a *Allocator) Release(service types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.services[service]
	if h == nil {
		return false
	}
	a.free(service, h.all())
	delete(a.services, service)
	return true
}

// Holds tells whether the Service has addresses.
func (a *Allocator) Holds(service types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.services[service] != nil
}

// Services returns the Services that have addresses.
func (a *Allocator) Services() []types.NamespacedName {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.services))
}

// Released returns the addresses that were given back last, by the name of their pool and the latest at the end: of each pool with the
// strategy LeastRecentlyUsed that has some, 64 at most.
func (a *Allocator) Released() map[string][]netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	released := map[string][]netip.Addr{}
	for _, p := range a.pools {
		if len(p.released) > 0 {
			released[p.Name] = slices.Clone(p.released)
		}
	}
	return released
}

// Remember tells a new allocator what Released of the one before said about a pool. It comes after SetPools and before Adopt.
func (a *Allocator) Remember(pool string, released []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pools {
		if p.Name == pool {
			p.remember(released)
		}
	}
}

// Stats counts the addresses of every pool, by name and with IPv4 first.
func (a *Allocator) Stats() []Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	var stats []Stats
	for _, p := range a.pools {
		for _, f := range []Family{ipv4, ipv6} {
			stats = append(stats, p.stats(f))
		}
	}
	return stats
}

// take makes the Service one that has the address.
func (a *Allocator) take(service types.NamespacedName, addr netip.Addr) {
	users := a.holders[addr]
	p := a.poolOf(addr)
	if p != nil && len(users) == 0 {
		p.take(addr)
	}
	if p != nil && !inNamespace(users, service.Namespace) {
		p.enter(service.Namespace, addr)
	}
	i, _ := slices.BinarySearchFunc(users, service, compareNames)
	a.holders[addr] = slices.Insert(users, i, service)
}

func (a *Allocator) free(service types.NamespacedName, addrs []netip.Addr) {
	for _, addr := range addrs {
		users := slices.DeleteFunc(a.holders[addr], func(user types.NamespacedName) bool { return user == service })
		if a.holders[addr] = users; len(users) == 0 {
			delete(a.holders, addr)
		}
		p := a.poolOf(addr)
		if p == nil {
			continue
		}
		if len(users) == 0 {
			p.putBack(addr)
		}
		if !inNamespace(users, service.Namespace) {
			p.leave(service.Namespace, addr)
		}
		a.offer(addr)
	}
}

func inNamespace(users []types.NamespacedName, namespace string) bool {
	return slices.ContainsFunc(users, func(user types.NamespacedName) bool { return user.Namespace == namespace })
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// keep remembers what a Service holds, if it is anything.
func (a *Allocator) keep(service types.NamespacedName, h *holding) {
	if len(h.addrs)+len(h.leaving) == 0 {
		delete(a.services, service)
		return
	}
	a.services[service] = h
}

// poolOf returns the pool whose ranges have the address, or nil.
func (a *Allocator) poolOf(addr netip.Addr) *pool {
	i := sort.Search(len(a.spans), func(i int) bool { return addr.Compare(a.spans[i].To) <= 0 })
	if i == len(a.spans) || !a.spans[i].Contains(addr) {
		return nil
	}
	return a.spans[i].pool
}

func sorted(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

func hasFamily(addrs []netip.Addr, f Family) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return FamilyOf(a) == f })
}
