package announce

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Service is what of a Service matters to who announces it.
type Service struct {
	Labels labels.Set
	// Shared: it allows others to share its address.
	Shared bool
	// Local: its externalTrafficPolicy is Local.
	Local bool
	// Serving are the nodes that have a serving endpoint of it; "" stands for endpoints that name no node.
	Serving []string
	// LocalEndpoints is how many of them are on this node; it matters to BGP only, and there if Local.
	LocalEndpoints int
}

// Node is what of a node and its speaker matters to what it announces.
type Node struct {
	Name   string
	Labels labels.Set
	// Excluded: it carries the label that keeps external load balancers away, and the label is heeded.
	Excluded bool
	// NetworkUnavailable is the condition of that name.
	NetworkUnavailable bool
	// Live: its speaker is a live member.
	Live bool
	// Leaving: its speaker is about to stop.
	Leaving bool
	// Interfaces are those that its speaker can use; nil when it has not told yet.
	Interfaces []string
}

// Advertisements returns those that announce the Service's addresses from the pool, or the reason why none does.
func Advertisements(svc Service, pool string, all []*config.L2Advertisement) ([]*config.L2Advertisement, Reason) {
	var ads []*config.L2Advertisement
	for _, ad := range all {
		if _, ok := slices.BinarySearch(ad.Pools, pool); !ok || !ad.SelectsService(svc.Labels) {
			continue
		}
		if svc.Shared && len(ad.Services) > 0 {
			return nil, SharedWithServiceSelector
		}
		ads = append(ads, ad)
	}
	if len(ads) == 0 {
		return nil, NoAdvertisement
	}
	return ads, ""
}

// Eligible returns the nodes that may announce the Service under its advertisements, sorted by name, or the reason why none may.
func Eligible(svc Service, ads []*config.L2Advertisement, nodes []Node) ([]Candidate, Reason) {
	if len(svc.Serving) == 0 {
		return nil, NoServingEndpoint
	}
	candidates := make([]Candidate, 0, len(nodes))
	for i := range nodes {
		if c, refused := Judge(svc, ads, &nodes[i]); refused == "" {
			candidates = append(candidates, c)
		}
	}
	if len(candidates) == 0 {
		return nil, NoEligibleNode
	}
	slices.SortFunc(candidates, func(a, b Candidate) int { return strings.Compare(a.Node, b.Node) })
	return candidates, ""
}

// Judge returns the node as a candidate under the Service's advertisements, or the reason why it is refused.
func Judge(svc Service, ads []*config.L2Advertisement, n *Node) (Candidate, Reason) {
	switch {
	case !n.Live:
		return Candidate{}, NoLiveSpeaker
	case n.Leaving:
		return Candidate{}, Leaving
	case n.NetworkUnavailable:
		return Candidate{}, NetworkUnavailable
	case n.Excluded:
		return Candidate{}, ExcludedByLabel
	}
	c := Candidate{Node: n.Name}
	selected, usable, everywhere := false, false, false
	for _, ad := range ads {
		if !ad.SelectsNode(n.Labels) {
			continue
		}
		selected = true
		if !n.reaches(ad) {
			continue
		}
		everywhere = everywhere || len(ad.Interfaces) == 0
		usable = true
		c.Weight += ad.Weight(n.Labels)
		c.Interfaces = append(c.Interfaces, ad.Interfaces...)
	}
	switch {
	case !selected:
		return Candidate{}, NotSelected
	case !usable:
		return Candidate{}, NoInterface
	case svc.Local && !slices.Contains(svc.Serving, n.Name):
		return Candidate{}, NoLocalEndpoint
	case everywhere:
		c.Interfaces = nil
	default:
		slices.Sort(c.Interfaces)
		c.Interfaces = slices.Compact(c.Interfaces)
	}
	return c, ""
}

// reaches tells whether the node has an interface for the advertisement. One that has not told is given the benefit of the doubt: it
// has just restarted, and what it holds is not to move.
func (n *Node) reaches(ad *config.L2Advertisement) bool {
	switch {
	case n.Interfaces == nil:
		return true
	case len(ad.Interfaces) == 0:
		return len(n.Interfaces) > 0
	}
	return slices.ContainsFunc(ad.Interfaces, func(name string) bool { return slices.Contains(n.Interfaces, name) })
}

// Together merges the candidates of everything that must be announced by one node. Where no node may announce all of it, those
// that may announce most of it are left.
func Together(parts ...[]Candidate) []Candidate {
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return parts[0]
	}
	var merged []Candidate
	var covers []int
	for _, part := range parts {
		for _, c := range part {
			i := slices.IndexFunc(merged, func(m Candidate) bool { return m.Node == c.Node })
			if i < 0 {
				merged, covers = append(merged, Candidate{Node: c.Node, Weight: c.Weight}), append(covers, 1)
				continue
			}
			merged[i].Weight += c.Weight
			covers[i]++
		}
	}
	if len(merged) == 0 {
		return nil
	}
	most := slices.Max(covers)
	kept := merged[:0]
	for i, c := range merged {
		if covers[i] == most {
			kept = append(kept, c)
		}
	}
	slices.SortFunc(kept, func(a, b Candidate) int { return strings.Compare(a.Node, b.Node) })
	return kept
}
