package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// parsePools returns the pools sorted by name. Older pools are served first, so that creating a pool takes no address away
// from another.
func parsePools(resources []v1beta1.IPAddressPool) ([]*Pool, []Fault) {
	var pools []*Pool
	var faults []Fault
	var taken allotment
	for _, res := range oldestFirst(resources) {
		pool, poolFaults := parsePool(res, &taken)
		pools = append(pools, pool)
		faults = append(faults, poolFaults...)
	}
	slices.SortFunc(pools, func(a, b *Pool) int { return strings.Compare(a.Name, b.Name) })
	return pools, faults
}

func parsePool(res *v1beta1.IPAddressPool, taken *allotment) (*Pool, []Fault) {
	p := &Pool{
		Name:          res.Name,
		Labels:        labels.Set(res.Labels),
		AutoAssign:    res.Spec.AutoAssign == nil || *res.Spec.AutoAssign,
		AvoidBuggyIPs: res.Spec.AvoidBuggyIPs,
		Strategy:      cmp.Or(res.Spec.Strategy, v1beta1.StrategyLowest),

		ShareAcrossNamespaces: res.Spec.ShareAcrossNamespaces,
	}
	f := complaints{kind: KindIPAddressPool, name: res.Name}
	for i, text := range res.Spec.Addresses {
		field := fmt.Sprintf("spec.addresses[%d]", i)
		r, err := ParseRange(text)
		if err != nil {
			f.fault(field, ReasonMalformedRange, err.Error())
			continue
		}
		free, overlaps := taken.take(r, allotted{pool: res.Name, field: field})
		p.Ranges = append(p.Ranges, free...)
		for _, o := range overlaps {
			if o.pool == res.Name {
				f.fault(field, ReasonDuplicateRange, fmt.Sprintf("%s is also in %s: take it out of one of the two", o.Range, o.field))
			} else {
				f.fault(field, ReasonOverlappingPools, fmt.Sprintf(
					"%s belongs to the older pool %q (%s there), and this pool goes without it: take it out of one of the two",
					o.Range, o.pool, o.field))
			}
		}
	}
	p.Ranges = joined(p.Ranges)

	if a := res.Spec.ServiceAllocation; a != nil {
		p.Allocation = &ServiceAllocation{
			Priority:           int(a.Priority),
			Namespaces:         slices.Clone(a.Namespaces),
			NamespaceSelectors: selectors(a.NamespaceSelectors, "spec.serviceAllocation.namespaceSelectors", &f),
			ServiceSelectors:   selectors(a.ServiceSelectors, "spec.serviceAllocation.serviceSelectors", &f),
		}
	}
	return p, f.faults
}

// allotted is a range, and the pool and the field that have it.
type allotted struct {
	Range
	pool, field string
}

// allotment is who has which addresses: disjoint ranges in ascending order.
type allotment []allotted

// take gives the owner what is still free of the range, and returns that and the parts that others have.
func (t *allotment) take(r Range, owner allotted) (free []Range, overlaps []allotted) {
	first := sort.Search(len(*t), func(i int) bool { return r.From.Compare((*t)[i].To) <= 0 })
	next, full := r.From, false
	var mine []allotted
	end := first
	for ; end < len(*t) && (*t)[end].From.Compare(r.To) <= 0; end++ {
		other := (*t)[end]
		if next.Less(other.From) {
			free = append(free, Range{From: next, To: other.From.Prev()})
		}
		part := other
		part.From, part.To = maxAddr(r.From, other.From), minAddr(r.To, other.To)
		overlaps = append(overlaps, part)
		if r.To.Compare(other.To) <= 0 {
			full = true
		} else {
			next = other.To.Next()
		}
		mine = append(mine, other)
	}
	if !full {
		free = append(free, Range{From: next, To: r.To})
	}
	for _, f := range free {
		mine = append(mine, allotted{Range: f, pool: owner.pool, field: owner.field})
	}
	slices.SortFunc(mine, func(a, b allotted) int { return a.compare(b.Range) })
	*t = slices.Replace(*t, first, end, mine...)
	return free, overlaps
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

// nodeAddressFaults warns of every pool that could give a node's own address to a Service.
func nodeAddressFaults(cfg *Config, nodes []corev1.Node) []Fault {
	found := map[string][]string{}
	for _, node := range nodes {
		for _, a := range nodeAddresses(&node) {
			if p := cfg.PoolOf(a); p != nil {
				found[p.Name] = append(found[p.Name], fmt.Sprintf("%s (node %s)", a, node.Name))
			}
		}
	}
	var faults []Fault
	for pool, addresses := range found {
		slices.Sort(addresses)
		addresses = slices.Compact(addresses)
		faults = append(faults, Fault{
			Kind: KindIPAddressPool, Name: pool, Field: "spec.addresses", Type: ConditionNodeAddressInPool,
			Reason: ReasonNodeAddressInPool, Warning: true,
			Message: "has the nodes' own addresses " + abridged(addresses, ", ") +
				", which a Service must not get: take them out of the pool",
		})
	}
	return faults
}

// nodeAddresses returns the addresses of a node; it may have host names beside them.
func nodeAddresses(node *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, address := range node.Status.Addresses {
		if a, err := netip.ParseAddr(address.Address); err == nil {
			out = append(out, a)
		}
	}
	return out
}
