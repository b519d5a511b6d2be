package ipam

import (
	"math"
	"math/bits"
	"net/netip"

	"github.com/google/btree"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// freeList is the free addresses of a pool, as disjoint ranges that don't touch, in ascending order with IPv4 first. It has one
// range more than there are addresses in use at most, however large the pool is.
type freeList struct {
	ranges *btree.BTreeG[config.Range]
}

func newFreeList(ranges []config.Range) freeList {
	f := freeList{btree.NewG(16, func(a, b config.Range) bool { return a.From.Less(b.From) })}
	for _, r := range ranges {
		f.ranges.ReplaceOrInsert(r)
	}
	return f
}

// lowest returns the lowest free address of a family.
func (f freeList) lowest(family Family) (lowest netip.Addr, ok bool) {
	f.ranges.AscendGreaterOrEqual(config.Range{From: first(family)}, func(r config.Range) bool {
		lowest, ok = r.From, FamilyOf(r.From) == family
		return false
	})
	return lowest, ok
}

func first(family Family) netip.Addr {
	if family == ipv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// around returns the free range that has the address.
func (f freeList) around(a netip.Addr) (around config.Range, ok bool) {
	f.ranges.DescendLessOrEqual(config.Range{From: a}, func(r config.Range) bool {
		around, ok = r, r.Contains(a)
		return false
	})
	return around, ok
}

// remove takes an address out. It tells whether the address was in.
func (f freeList) remove(a netip.Addr) bool {
	r, ok := f.around(a)
	if !ok {
		return false
	}
	f.ranges.Delete(r)
	if r.From != a {
		f.ranges.ReplaceOrInsert(config.Range{From: r.From, To: a.Prev()})
	}
	if r.To != a {
		f.ranges.ReplaceOrInsert(config.Range{From: a.Next(), To: r.To})
	}
	return true
}

// add puts an address back that remove took out.
func (f freeList) add(a netip.Addr) {
	r := config.Range{From: a, To: a}
	if before, ok := f.around(a.Prev()); ok {
		f.ranges.Delete(before)
		r.From = before.From
	}
	if after, ok := f.around(a.Next()); ok {
		f.ranges.Delete(after)
		r.To = after.To
	}
	f.ranges.ReplaceOrInsert(r)
}

// size returns the number of addresses in a range, math.MaxInt64 when there are more.
func size(r config.Range) int64 {
	fromHigh, fromLow := halves(r.From)
	toHigh, toLow := halves(r.To)
	low, borrow := bits.Sub64(toLow, fromLow, 0)
	high, _ := bits.Sub64(toHigh, fromHigh, borrow)
	if high != 0 || low >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low) + 1
}

// buggy tells whether old devices may take the address for that of a network or for a broadcast.
func buggy(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	last := a.As4()[3]
	return last == 0 || last == 255
}

// buggyIn returns the number of such addresses in a range.
func buggyIn(r config.Range) int64 {
	if !r.From.Is4() {
		return 0
	}
	_, from := halves(r.From)
	_, to := halves(r.To)
	// Of the n addresses below n, (n+255)/256 end in .0 and n/256 in .255.
	below := func(n uint64) uint64 { return (n+255)/256 + n/256 }
	return int64(below(to+1) - below(from))
}

func halves(a netip.Addr) (high, low uint64) {
	b := a.As16()
	if a.Is4() {
		b = [16]byte{12: b[12], 13: b[13], 14: b[14], 15: b[15]}
	}
	for i := range 8 {
		high = high<<8 | uint64(b[i])
		low = low<<8 | uint64(b[8+i])
	}
	return high, low
}

// addSaturated returns a+b, math.MaxInt64 when it is more.
func addSaturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
