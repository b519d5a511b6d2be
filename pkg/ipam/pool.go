package ipam

import (
	"cmp"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"sort"

	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// pool is an address pool, what is free of it, and who may have more of it.
type pool struct {
	*config.Pool
	reservations []reserved                          // by address
	own          map[types.NamespacedName][]reserved // those for one Service, by address
	free         freeList                            // without what is reserved or released
	released     []netip.Addr
	shared       sharedList
	total        map[Family]int64 // without what is reserved for nobody; math.MaxInt64 when there are more
	used         map[Family]int64 // of total
	setAside     map[Family]int64 // of total: reserved for somebody, and free
	namespaces   map[tenant]int
}

// tenant has addresses of a family.
type tenant struct {
	namespace string
	family    Family
}

// reserved is the addresses that a reservation has of a pool.
type reserved struct {
	config.Range
	by    *config.Reservation
	among []*config.Reservation // by, and those that keep the addresses too
}

func newPool(c *config.Pool, reservations []reserved) *pool {
	p := &pool{
		Pool: c, reservations: reservations, free: newFreeList(c.Ranges), shared: newSharedList(),
		own:   map[types.NamespacedName][]reserved{},
		total: map[Family]int64{}, used: map[Family]int64{}, setAside: map[Family]int64{}, namespaces: map[tenant]int{},
	}
	for _, r := range reservations {
		p.free.cut(r.Range)
		for _, by := range r.among {
			if by.Service != "" {
				service := types.NamespacedName{Namespace: by.Namespace, Name: by.Service}
				p.own[service] = append(p.own[service], r)
			}
		}
		if f := FamilyOf(r.From); r.by.Namespace != "" {
			p.setAside[f] = addSaturated(p.setAside[f], p.count(r.Range))
		}
	}
	for _, f := range []Family{ipv4, ipv6} {
		p.total[f] = p.setAside[f]
	}
	p.free.ranges.Ascend(func(r config.Range) bool {
		p.total[FamilyOf(r.From)] = addSaturated(p.total[FamilyOf(r.From)], p.count(r))
		return true
	})
	return p
}

// count returns how many addresses of a range the pool gives out.
func (p *pool) count(r config.Range) int64 {
	n := size(r)
	if p.AvoidBuggyIPs {
		n -= buggyIn(r)
	}
	return n
}

// reservationsIn returns what is reserved of a pool, by address.
func reservationsIn(c *config.Pool, reservations []*config.Reservation) []reserved {
	var out []reserved
	for _, by := range reservations {
		for _, r := range by.Ranges {
			for _, own := range c.Ranges {
				if common, ok := intersection(r, own); ok {
					out = append(out, reserved{common, by, []*config.Reservation{by}})
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y reserved) int { return x.From.Compare(y.From) })
	for _, by := range reservations {
		for _, r := range by.Common {
			if piece := pieceOf(out, r.From); piece != nil {
				piece.among = append(piece.among, by)
			}
		}
	}
	return out
}

func intersection(r, s config.Range) (config.Range, bool) {
	if r.From.BitLen() != s.From.BitLen() {
		return config.Range{}, false
	}
	if r.From.Less(s.From) {
		r.From = s.From
	}
	if s.To.Less(r.To) {
		r.To = s.To
	}
	return r, !r.To.Less(r.From)
}

// sameAddresses tells whether the pool still gives out what it did, to the same and in the same way.
func (p *pool) sameAddresses(c *config.Pool, reservations []reserved) bool {
	return p.AvoidBuggyIPs == c.AvoidBuggyIPs && p.Strategy == c.Strategy && slices.Equal(p.Ranges, c.Ranges) &&
		slices.EqualFunc(p.reservations, reservations, func(x, y reserved) bool {
			return x.Range == y.Range && slices.EqualFunc(x.among, y.among, func(x, y *config.Reservation) bool {
				return x.Namespace == y.Namespace && x.Service == y.Service
			})
		})
}

func (p *pool) sameConfig(c *config.Pool) bool { return reflect.DeepEqual(p.Pool, c) }

// gives tells whether the pool has the address and does not avoid it.
func (p *pool) gives(a netip.Addr) bool { return p.Contains(a) && !(p.AvoidBuggyIPs && buggy(a)) }

// allows tells whether the Service may have addresses of the pool.
func (p *pool) allows(r *Request) bool {
	return p.Allocation == nil || p.Allocation.Allows(r.Service.Namespace, r.NamespaceLabels, r.Labels)
}

// has tells whether there are addresses of a family in the pool, be they reserved or not.
func (p *pool) has(f Family) bool {
	return slices.ContainsFunc(p.Ranges, func(r config.Range) bool { return FamilyOf(r.From) == f })
}

// piece returns the reserved addresses that the address is one of, or nil.
func (p *pool) piece(a netip.Addr) *reserved { return pieceOf(p.reservations, a) }

func pieceOf(pieces []reserved, a netip.Addr) *reserved {
	i := sort.Search(len(pieces), func(i int) bool { return a.Compare(pieces[i].To) <= 0 })
	if i == len(pieces) || !pieces[i].Contains(a) {
		return nil
	}
	return &pieces[i]
}

// isFor tells whether a Service may have the reserved addresses.
func (r *reserved) isFor(service types.NamespacedName) bool {
	return slices.ContainsFunc(r.among, func(by *config.Reservation) bool { return by.For(service.Namespace, service.Name) })
}

// reservation returns the one that has the address, or nil.
func (p *pool) reservation(a netip.Addr) *config.Reservation {
	if piece := p.piece(a); piece != nil {
		return piece.by
	}
	return nil
}

// take makes an address one in use.
func (p *pool) take(a netip.Addr) {
	by := p.reservation(a)
	if by == nil {
		p.occupy(a)
	}
	p.book(a, by, 1)
}

// putBack makes an address in use a free one.
func (p *pool) putBack(a netip.Addr) {
	by := p.reservation(a)
	if by == nil {
		p.release(a)
	}
	p.book(a, by, -1)
}

func (p *pool) book(a netip.Addr, by *config.Reservation, n int64) {
	f := FamilyOf(a)
	if !p.gives(a) || by != nil && by.Namespace == "" {
		return
	}
	p.used[f] += n
	if by != nil && p.setAside[f] < math.MaxInt64 {
		p.setAside[f] -= n
	}
}

// enter counts an address of a namespace that had none of it before.
func (p *pool) enter(namespace string, a netip.Addr) {
	p.namespaces[tenant{namespace, FamilyOf(a)}]++
}

// leave counts an address that a namespace has no longer.
func (p *pool) leave(namespace string, a netip.Addr) {
	t := tenant{namespace, FamilyOf(a)}
	if p.namespaces[t]--; p.namespaces[t] == 0 {
		delete(p.namespaces, t)
	}
}

func (p *pool) available(family Family) int64 {
	if p.total[family] == math.MaxInt64 {
		return math.MaxInt64
	}
	return max(0, p.total[family]-p.used[family]-p.setAside[family])
}

// byPriority orders pools with serviceAllocation: the lowest number first, 0 last, then by name.
func byPriority(a, b *pool) int {
	rank := func(p *pool) int {
		if p.Allocation.Priority == 0 {
			return math.MaxInt
		}
		return p.Allocation.Priority
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
}

// Stats counts a pool's addresses of one family. Total is InUse, Available and Reserved together.
type Stats struct {
	Pool   string
	Family Family
	// Total is without the addresses that are reserved for nobody, math.MaxInt64 when there are more.
	Total int64
	InUse int64
	// Available is what any Service that may use the pool can have, math.MaxInt64 when Total is.
	Available int64
	// Reserved is what is free too, but only for those that it is reserved for.
	Reserved int64
	// Namespaces are the addresses in use by namespace; nil for a pool without quotas. An address that two namespaces share is with both.
	Namespaces map[string]int64
}

func (p *pool) stats(f Family) Stats {
	s := Stats{Pool: p.Name, Family: f, Total: p.total[f], InUse: p.used[f], Available: p.available(f), Reserved: p.setAside[f]}
	if len(p.Quotas) > 0 {
		s.Namespaces = map[string]int64{}
		for t, n := range p.namespaces {
			if t.family == f {
				s.Namespaces[t.namespace] = int64(n)
			}
		}
	}
	return s
}
