package ipam

import (
	"cmp"
	"math"
	"net/netip"
	"reflect"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// pool is an address pool and what is free of it.
type pool struct {
	*config.Pool
	free  freeList
	used  map[Family]int64
	total map[Family]int64 // math.MaxInt64 when there are more
	// released are the free addresses that were given back last, the latest at the end.
	released []netip.Addr
}

func newPool(c *config.Pool) *pool {
	p := &pool{Pool: c, free: newFreeList(c.Ranges), used: map[Family]int64{}, total: map[Family]int64{}}
	for _, r := range c.Ranges {
		n := size(r)
		if c.AvoidBuggyIPs {
			n -= buggyIn(r)
		}
		p.total[FamilyOf(r.From)] = addSaturated(p.total[FamilyOf(r.From)], n)
	}
	return p
}

// sameAddresses tells whether the pool still gives out what it did.
func (p *pool) sameAddresses(c *config.Pool) bool {
	return p.AvoidBuggyIPs == c.AvoidBuggyIPs && slices.Equal(p.Ranges, c.Ranges)
}

func (p *pool) sameConfig(c *config.Pool) bool { return reflect.DeepEqual(p.Pool, c) }

// gives tells whether the pool would give out the address if it were free.
func (p *pool) gives(a netip.Addr) bool { return p.Contains(a) && !(p.AvoidBuggyIPs && buggy(a)) }

// allows tells whether the Service may have addresses of the pool.
func (p *pool) allows(r *Request) bool {
	return p.Allocation == nil || p.Allocation.Allows(r.Service.Namespace, r.NamespaceLabels, r.Labels)
}

// lowest returns the lowest address that the pool can give.
func (p *pool) lowest(family Family) (netip.Addr, bool) {
	for {
		a, ok := p.free.lowest(family)
		if !ok || p.gives(a) {
			return a, ok
		}
		// It will never be given out; without it the next search is shorter.
		p.free.remove(a)
	}
}

func (p *pool) take(a netip.Addr) {
	p.free.remove(a)
	p.used[FamilyOf(a)]++
}

func (p *pool) putBack(a netip.Addr) {
	p.free.add(a)
	p.used[FamilyOf(a)]--
}

func (p *pool) available(family Family) int64 {
	if p.total[family] == math.MaxInt64 {
		return math.MaxInt64
	}
	return max(0, p.total[family]-p.used[family])
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

// Stats counts a pool's addresses of one family.
type Stats struct {
	Pool   string
	Family Family
	Total  int64 // math.MaxInt64 when there are more
	InUse  int64
	// Available is what any Service that may use the pool can have, math.MaxInt64 when Total is.
	Available int64
	// Reserved is what is free too, but for the Services only that it is reserved for.
	Reserved int64
	// Namespaces are the addresses in use by namespace; nil for a pool without quotas. An address that two namespaces share is with both.
	Namespaces map[string]int64
}
