package config

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// parseBGPAdvertisement returns nil for an advertisement that can't be in force. Names of peers that don't exist stay, because without
// any the advertisement would be for all.
func parseBGPAdvertisement(res *v1beta1.BGPAdvertisement, names communityNames, peers map[string]bool, pools []*Pool, nodes []corev1.Node) (*BGPAdvertisement, []Fault) {
	spec := &res.Spec
	f := complaints{kind: KindBGPAdvertisement, name: res.Name}
	ad := &BGPAdvertisement{
		Name:              res.Name,
		Length4:           prefixLength(spec.AggregationLength, 32, "spec.aggregationLength", &f),
		Length6:           prefixLength(spec.AggregationLengthV6, 128, "spec.aggregationLengthV6", &f),
		Attributes:        bgp.Attributes{LocalPref: spec.LocalPref, Prepend: uint8(spec.ASPathPrepend)},
		WeightByEndpoints: spec.WeightByEndpoints,
	}
	if spec.MED != nil {
		ad.Attributes.MED, ad.Attributes.HasMED = *spec.MED, true
	}
	if spec.ASPathPrepend < 0 || spec.ASPathPrepend > 10 {
		f.fault("spec.asPathPrepend", ReasonInvalidValue, fmt.Sprintf("%d is not possible: write 0 to 10", spec.ASPathPrepend))
	}
	for i, text := range spec.Communities {
		community := names.resolve(text, fmt.Sprintf("spec.communities[%d]", i), &f)
		ad.Attributes.Communities = append(ad.Attributes.Communities, community)
	}
	slices.SortFunc(ad.Attributes.Communities, bgp.Community.Compare)
	ad.Attributes.Communities = slices.Compact(ad.Attributes.Communities)
	if len(spec.ServiceSelectors) > 0 && (ad.Length4 != 32 || ad.Length6 != 128) {
		f.fault("spec.serviceSelectors", ReasonContradiction, "go with single addresses only, because an aggregate is announced for all Services in it; "+
			"the advertisement is not in force: take away the selectors, or aggregationLength and aggregationLengthV6")
	}
	unusable := f.harmful

	ad.Nodes = selectors(spec.NodeSelectors, "spec.nodeSelectors", &f)
	ad.Services = selectors(spec.ServiceSelectors, "spec.serviceSelectors", &f)
	judgeNodes(ad.Nodes, nodes, "nothing is announced", &f)
	ad.Peers = resolvePeers(spec.Peers, peers, &f)
	ad.Pools = resolvePools(spec.IPAddressPools, spec.IPAddressPoolSelectors, pools, &f)
	if unusable {
		return nil, f.faults
	}
	for _, p := range pools {
		if i, ok := slices.BinarySearch(ad.Pools, p.Name); ok && ad.tooWideFor(p, &f) {
			ad.Pools = slices.Delete(ad.Pools, i, i+1)
		}
	}
	return ad, f.faults
}

func prefixLength(length *int32, most int, field string, f *complaints) int {
	if length == nil {
		return most
	}
	if *length < 1 || int(*length) > most {
		f.fault(field, ReasonInvalidValue, fmt.Sprintf("%d is no length of a prefix here: write 1 to %d", *length, most))
	}
	return int(*length)
}

// resolvePeers returns the names, sorted.
func resolvePeers(names []string, known map[string]bool, f *complaints) []string {
	if len(names) == 0 && len(known) == 0 {
		f.fault("spec.peers", ReasonNoPeer, "there is no BGPPeer to tell: create one")
	}
	for i, name := range names {
		if !known[name] {
			f.fault(fmt.Sprintf("spec.peers[%d]", i), ReasonPeerNotFound, fmt.Sprintf(
				"there is no BGPPeer %q: create it, or name one of kubectl get bgppeers.steelyard.io", name))
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// tooWideFor finds fault with an aggregate that would draw traffic for addresses outside of the pool. A range need not consist of
// aggregates, but one must fit in: as in MetalLB, its first and last address may be those of a network.
func (a *BGPAdvertisement) tooWideFor(p *Pool, f *complaints) bool {
	wide := false
	for _, r := range p.Ranges {
		length, field := a.Length4, "spec.aggregationLength"
		if r.From.Is6() {
			length, field = a.Length6, "spec.aggregationLengthV6"
		}
		if fits(r, length) {
			continue
		}
		least := length + 1
		for !fits(r, least) {
			least++
		}
		f.fault(field, ReasonAggregationTooWide, fmt.Sprintf(
			"a /%d has addresses that the range %s of pool %q does not have, so this advertisement leaves the pool out: write %d or more, or enlarge the pool",
			length, r, p.Name, least))
		wide = true
	}
	return wide
}

// fits tells whether there is a network of this length within the range.
func fits(r Range, length int) bool {
	network := netip.PrefixFrom(r.To, length).Masked()
	if last(network) != r.To {
		before := network.Addr().Prev()
		if !before.IsValid() {
			return false
		}
		network = netip.PrefixFrom(before, length).Masked()
	}
	return r.Contains(network.Addr())
}

// localPrefFaults finds fault with advertisements that tell the same peers of the same prefixes with another LOCAL_PREF than an older one
// does. The older one wins for what both announce. Services are not known here, so nothing is said of advertisements that select them.
func localPrefFaults(ads []*BGPAdvertisement, pools []*Pool, nodes []corev1.Node) []Fault {
	var faults []Fault
	for i, younger := range ads {
		f := complaints{kind: KindBGPAdvertisement, name: younger.Name}
		for _, older := range ads[:i] {
			if younger.Attributes.LocalPref == older.Attributes.LocalPref || len(younger.Services)+len(older.Services) > 0 {
				continue
			}
			contested := contestedPools(younger, older, pools)
			if len(contested) == 0 || !shareAPeer(younger.Peers, older.Peers) || !shareANode(younger, older, nodes) {
				continue
			}
			f.fault("spec.localPref", ReasonLocalPrefConflict, fmt.Sprintf(
				"is %d where the older advertisement %q, which wins, has %d for the same peers and nodes and the pools %s: "+
					"make both equal, or keep their pools, peers or nodes apart",
				younger.Attributes.LocalPref, older.Name, older.Attributes.LocalPref, abridged(contested, ", ")))
		}
		faults = append(faults, f.faults...)
	}
	return faults
}

// contestedPools returns the names of the pools of which both announce the same prefixes.
func contestedPools(a, b *BGPAdvertisement, pools []*Pool) []string {
	var names []string
	for _, p := range pools {
		same := func(r Range) bool {
			return (r.From.Is4() && a.Length4 == b.Length4) || (r.From.Is6() && a.Length6 == b.Length6)
		}
		if a.Announces(p.Name) && b.Announces(p.Name) && slices.ContainsFunc(p.Ranges, same) {
			names = append(names, p.Name)
		}
	}
	return names
}

func shareAPeer(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}

// shareANode tells whether both announce from one node. Without knowing the nodes, it is sure only where one of them selects all.
func shareANode(a, b *BGPAdvertisement, nodes []corev1.Node) bool {
	if nodes == nil {
		return len(a.Nodes) == 0 || len(b.Nodes) == 0
	}
	return slices.ContainsFunc(nodes, func(n corev1.Node) bool { return a.SelectsNode(n.Labels) && b.SelectsNode(n.Labels) })
}
