package announce

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// endpointBandwidth is what the link bandwidth community says for each endpoint: 1 Mbit/s, in bytes per second. Routers look at
// proportions only, and this one they print as a whole number.
const endpointBandwidth = 125_000

// Contribution is one prefix that a Service's address gives rise to. It may share memory with what it was made of, and nothing of it is
// to be changed.
type Contribution struct {
	Prefix netip.Prefix
	// Peers are the names of those that are told, sorted and not empty. No other contribution of the address has the prefix and one of
	// them.
	Peers      []string
	Attributes bgp.Attributes
	// LeftOut are the names of advertisements that would tell these peers of the prefix with another localPref than an older one does,
	// and which the prefix therefore gets nothing from; sorted.
	LeftOut []string
}

// Routes returns what this node announces by BGP for one address of a Service, sorted by prefix, or the reason why nothing. ads are
// sorted, the oldest first. peers are the names of the BGPPeers that this node has a session with and that are told of the address's
// family, sorted.
//
// Where several advertisements tell a peer of one prefix, it is told what merge makes of them.
func Routes(svc Service, addr netip.Addr, pool string, ads []*config.BGPAdvertisement, node *Node, peers []string) ([]Contribution, Reason) {
	reason := NoAdvertisement
	var told []telling
	for _, ad := range ads {
		if !ad.Announces(pool) || !ad.SelectsService(svc.Labels) {
			continue
		}
		if !ad.SelectsNode(node.Labels) {
			if reason == NoAdvertisement {
				reason = NotSelected
			}
			continue
		}
		to := peers
		if len(ad.Peers) > 0 {
			to = intersection(peers, ad.Peers)
		}
		if len(to) == 0 {
			reason = NoPeer
			continue
		}
		told = append(told, telling{ad: ad, prefix: prefixOf(addr, ad), peers: to})
	}
	switch {
	case len(told) == 0:
		return nil, reason
	case node.NetworkUnavailable:
		return nil, NetworkUnavailable
	case node.Excluded:
		return nil, ExcludedByLabel
	case len(svc.Serving) == 0:
		return nil, NoServingEndpoint
	case svc.Local && !slices.Contains(svc.Serving, node.Name):
		return nil, NoLocalEndpoint
	}
	return contributions(svc, told), ""
}

// telling is what one advertisement has this node tell of an address.
type telling struct {
	ad     *config.BGPAdvertisement
	prefix netip.Prefix
	peers  []string
}

func (t *telling) attributes(svc Service) bgp.Attributes {
	attributes := t.ad.Attributes
	if t.ad.WeightByEndpoints && svc.Local {
		attributes.Bandwidth = uint64(max(svc.LocalEndpoints, 0)) * endpointBandwidth
	}
	return attributes
}

func contributions(svc Service, told []telling) []Contribution {
	if len(told) == 1 {
		return []Contribution{{Prefix: told[0].prefix, Peers: told[0].peers, Attributes: told[0].attributes(svc)}}
	}
	// Within a prefix the oldest stays first.
	slices.SortStableFunc(told, func(a, b telling) int { return a.prefix.Compare(b.prefix) })
	var all []Contribution
	for len(told) > 0 {
		n := 1
		for n < len(told) && told[n].prefix == told[0].prefix {
			n++
		}
		all = append(all, agreed(svc, told[:n])...)
		told = told[n:]
	}
	return all
}

// agreed returns what each peer is told of one prefix, peers that are told the same together.
func agreed(svc Service, told []telling) []Contribution {
	var peers []string
	for i := range told {
		peers = append(peers, told[i].peers...)
	}
	slices.Sort(peers)
	var all []Contribution
	for _, peer := range slices.Compact(peers) {
		c := Contribution{Prefix: told[0].prefix}
		first := true
		for i := range told {
			t := &told[i]
			if _, ok := slices.BinarySearch(t.peers, peer); !ok {
				continue
			}
			attributes := t.attributes(svc)
			switch {
			case first:
				c.Attributes, first = attributes, false
			case localPref(c.Attributes) != localPref(attributes):
				c.LeftOut = append(c.LeftOut, t.ad.Name)
			default:
				// Both count the same endpoints.
				bandwidth := max(c.Attributes.Bandwidth, attributes.Bandwidth)
				c.Attributes = merge(c.Attributes, attributes)
				c.Attributes.Bandwidth = bandwidth
			}
		}
		slices.Sort(c.LeftOut)
		i := slices.IndexFunc(all, func(o Contribution) bool {
			return o.Attributes.Equal(&c.Attributes) && slices.Equal(o.LeftOut, c.LeftOut)
		})
		if i < 0 {
			i, all = len(all), append(all, c)
		}
		all[i].Peers = append(all[i].Peers, peer)
	}
	return all
}

// merge returns what a peer is told that is to be told a and b about one prefix: the union of the communities, the sum of the bandwidths,
// and of everything else what makes the route more attractive, so that nothing in the prefix becomes harder to reach because of
// something else in it: the highest localPref, the lowest MED that is set, the shortest AS path. The order does not matter.
func merge(a, b bgp.Attributes) bgp.Attributes {
	m := bgp.Attributes{
		LocalPref: a.LocalPref,
		MED:       a.MED,
		HasMED:    a.HasMED || b.HasMED,
		Prepend:   min(a.Prepend, b.Prepend),
		Bandwidth: a.Bandwidth + b.Bandwidth,
	}
	if x, y := localPref(a), localPref(b); y > x || y == x && b.LocalPref > a.LocalPref {
		m.LocalPref = b.LocalPref
	}
	if !a.HasMED || b.HasMED && b.MED < a.MED {
		m.MED = b.MED
	}
	switch {
	case len(a.Communities) == 0:
		m.Communities = b.Communities
	case len(b.Communities) == 0, slices.Equal(a.Communities, b.Communities):
		m.Communities = a.Communities
	default:
		m.Communities = slices.Concat(a.Communities, b.Communities)
		slices.SortFunc(m.Communities, bgp.Community.Compare)
		m.Communities = slices.Compact(m.Communities)
	}
	return m
}

// localPref returns what iBGP peers are told.
func localPref(a bgp.Attributes) uint32 {
	const byDefault = 100
	return cmp.Or(a.LocalPref, byDefault)
}

// GracefulShutdown returns the attributes of a route that is to be withdrawn soon: the community that RFC 8326 has for it, and the lowest
// localPref for peers of our own AS, which need not act on the community.
func GracefulShutdown(a bgp.Attributes) bgp.Attributes {
	a.LocalPref = 1
	if i, ok := slices.BinarySearchFunc(a.Communities, bgp.GracefulShutdown, bgp.Community.Compare); !ok {
		a.Communities = slices.Concat(a.Communities[:i], []bgp.Community{bgp.GracefulShutdown}, a.Communities[i:])
	}
	return a
}

func prefixOf(addr netip.Addr, ad *config.BGPAdvertisement) netip.Prefix {
	length := ad.Length6
	if addr.Is4() {
		length = ad.Length4
	}
	return netip.PrefixFrom(addr, length).Masked()
}

// intersection returns what is in both sorted lists.
func intersection(a, b []string) []string {
	var both []string
	for _, s := range a {
		if _, ok := slices.BinarySearch(b, s); ok {
			both = append(both, s)
		}
	}
	return both
}
