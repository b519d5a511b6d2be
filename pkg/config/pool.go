package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// parsePools returns the pools sorted by name, and which of them has which addresses. Older pools are served first, so that creating a
// pool takes no address away from another.
func parsePools(resources []v1beta1.IPAddressPool) (pools []*Pool, taken allotment, faults []Fault) {
	for _, res := range oldestFirst(resources) {
		pool, poolFaults := parsePool(res, &taken)
		pools = append(pools, pool)
		faults = append(faults, poolFaults...)
	}
	slices.SortFunc(pools, func(a, b *Pool) int { return strings.Compare(a.Name, b.Name) })
	return pools, taken, faults
}

func parsePool(res *v1beta1.IPAddressPool, taken *allotment) (*Pool, []Fault) {
	p := &Pool{
		Name:          res.Name,
		Labels:        labels.Set(res.Labels),
		AutoAssign:    res.Spec.AutoAssign == nil || *res.Spec.AutoAssign,
		AvoidBuggyIPs: res.Spec.AvoidBuggyIPs,

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
		free, overlaps := taken.take(r, res.Name, field)
		p.Ranges = append(p.Ranges, free...)
		for _, o := range overlaps {
			if o.owner == res.Name {
				f.fault(field, ReasonDuplicateRange, fmt.Sprintf("%s is also in %s: take it out of one of the two", o.Range, o.field))
			} else {
				f.fault(field, ReasonOverlappingPools, fmt.Sprintf(
					"%s belongs to the older pool %q (%s there), and this pool goes without it: take it out of one of the two",
					o.Range, o.owner, o.field))
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
	p.Strategy = parseStrategy(res.Spec.Strategy, &f)
	p.Quotas = parseQuotas(res.Spec.NamespaceQuotas, &f)
	return p, f.faults
}

func parseStrategy(s v1beta1.AllocationStrategy, f *complaints) v1beta1.AllocationStrategy {
	switch s {
	case v1beta1.StrategyLowest, v1beta1.StrategyRandom, v1beta1.StrategyLeastRecentlyUsed:
		return s
	case "":
	default:
		f.fault("spec.strategy", ReasonInvalidValue, fmt.Sprintf(
			"there is no strategy %q, and the lowest free address goes first: write Lowest, Random or LeastRecentlyUsed", s))
	}
	return v1beta1.StrategyLowest
}

func parseQuotas(in []v1beta1.NamespaceQuota, f *complaints) []Quota {
	var out []Quota
	forAll := "" // the entry that leaves nothing to the later ones
	named := map[string]string{}
	for i := range in {
		q := &in[i]
		field := fmt.Sprintf("spec.namespaceQuotas[%d]", i)
		if forAll != "" {
			f.warn(field, ReasonQuotaNotUsed, fmt.Sprintf("%s goes before it and is for all namespaces: move that one to the end", forAll))
		}
		if q.Addresses < 0 {
			f.fault(field+".addresses", ReasonInvalidValue, fmt.Sprintf("is %d, and is taken for 0: write 0 or more", q.Addresses))
		}
		for j, namespace := range q.Namespaces {
			if earlier := named[namespace]; earlier != "" && forAll == "" {
				f.warn(fmt.Sprintf("%s.namespaces[%d]", field, j), ReasonQuotaNotUsed, fmt.Sprintf(
					"%s goes before it and is for %s too: take it out of one of the two", earlier, namespace))
				continue
			}
			named[namespace] = field
		}
		out = append(out, Quota{
			Namespaces: slices.Clone(q.Namespaces),
			Selectors:  selectors(q.NamespaceSelectors, field+".namespaceSelectors", f),
			Addresses:  max(0, int(q.Addresses)),
		})
		if len(q.Namespaces) == 0 && len(q.NamespaceSelectors) == 0 && forAll == "" {
			forAll = field
		}
	}
	return out
}

// nodeAddressFaults warns of every pool that could give a node's own address to a Service.
func nodeAddressFaults(cfg *Config, nodes []corev1.Node) []Fault {
	found := map[string][]string{}
	for _, node := range nodes {
		for _, a := range nodeAddresses(&node) {
			if p := cfg.PoolOf(a); p != nil && !cfg.withheld(a) {
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
				", which a Service must not get: take them out of the pool, or reserve them for nobody by an AddressReservation",
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
