package ipam

import (
	"encoding/binary"
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

// next returns the lowest free address that is not below from and of its family.
func (f freeList) next(from netip.Addr) (next netip.Addr, ok bool) {
	if _, ok := f.around(from); ok {
		return from, true
	}
	f.ranges.AscendGreaterOrEqual(config.Range{From: from}, func(r config.Range) bool {
		next, ok = r.From, r.From.BitLen() == from.BitLen()
		return false
	})
	return next, ok
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
func (f freeList) remove(a netip.Addr) bool { return f.cut(config.Range{From: a, To: a}) }

// cut takes a range out that is all in or all out. It tells whether it was in.
func (f freeList) cut(r config.Range) bool {
	around, ok := f.around(r.From)
	if !ok {
		return false
	}
	f.ranges.Delete(around)
	if around.From != r.From {
		f.ranges.ReplaceOrInsert(config.Range{From: around.From, To: r.From.Prev()})
	}
	if around.To != r.To {
		f.ranges.ReplaceOrInsert(config.Range{From: r.To.Next(), To: around.To})
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

// plus returns the address n after a.
func plus(a netip.Addr, n uint64) netip.Addr {
	high, low := halves(a)
	low, carry := bits.Add64(low, n, 0)
	high += carry
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], high)
	binary.BigEndian.PutUint64(b[8:], low)
	if a.Is4() {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

func halves(a netip.Addr) (high, low uint64) {
	b := a.As16()
	if a.Is4() {
		b = [16]byte{12: b[12], 13: b[13], 14: b[14], 15: b[15]}
	}
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// addSaturated returns a+b, math.MaxInt64 when it is more.
func addSaturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
