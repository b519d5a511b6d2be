package config

import (
	"net/netip"
	"slices"
	"sort"
)

// allotted is a range, and the object and the field that have it.
type allotted struct {
	Range
	owner, field string
}

// allotment is who has which addresses: disjoint ranges in ascending order.
type allotment []allotted

// take gives the owner what is still free of the range, and returns that and the parts that are allotted already.
func (t *allotment) take(r Range, owner, field string) (free []Range, overlaps []allotted) {
	free, overlaps = t.split(r)
	for _, f := range free {
		*t = slices.Insert(*t, t.search(f.From), allotted{f, owner, field})
	}
	return free, overlaps
}

// split returns the parts of the range that nobody has, and those that somebody has.
func (t *allotment) split(r Range) (free []Range, taken []allotted) {
	next := r.From
	for _, part := range (*t)[t.search(r.From):] {
		if r.To.Less(part.From) {
			break
		}
		if next.Less(part.From) {
			free = append(free, Range{From: next, To: part.From.Prev()})
		}
		part.From, part.To = maxAddr(r.From, part.From), minAddr(r.To, part.To)
		taken = append(taken, part)
		if part.To == r.To {
			return free, taken
		}
		next = part.To.Next()
	}
	return append(free, Range{From: next, To: r.To}), taken
}

// search returns the index of the first part that does not end before the address.
func (t *allotment) search(a netip.Addr) int {
	return sort.Search(len(*t), func(i int) bool { return a.Compare((*t)[i].To) <= 0 })
}

// joined sorts disjoint ranges and makes one of those that touch.
func joined(ranges []Range) []Range {
	slices.SortFunc(ranges, Range.compare)
	var out []Range
	for _, r := range ranges {
		if n := len(out); n > 0 && out[n-1].To.Next() == r.From {
			out[n-1].To = r.To
			continue
		}
		out = append(out, r)
	}
	return out
}

func minAddr(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}

func maxAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}
