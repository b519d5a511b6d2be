package announce

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Field is all that decides which nodes may announce an address, by any protocol.
type Field struct {
	// Nodes, sorted by name.
	Nodes             []Node
	L2Advertisements  []*config.L2Advertisement
	BGPAdvertisements []*config.BGPAdvertisement // the oldest first
	BGPPeers          []*config.BGPPeer          // sorted by name
}

// Announcer returns a node that may announce a Service's address, or the reason why nobody may. Of BGP sessions it knows what BGPPeers
// say, not whether the node finds the peer.
func (f *Field) Announcer(svc Service, addr netip.Addr, pool string) (node string, reason Reason) {
	candidates, layer2 := f.candidates(svc, pool)
	if len(candidates) > 0 {
		return candidates[0].Node, ""
	}
	bgp := f.routers(svc, pool)
	if bgp == "" {
		for i := range f.Nodes {
			if f.Route(svc, addr, pool, &f.Nodes[i]) == "" {
				return f.Nodes[i].Name, ""
			}
		}
		bgp = NoEligibleNode
	}
	switch {
	case bgp == NoAdvertisement:
		return "", layer2
	case len(svc.Serving) == 0:
		return "", NoServingEndpoint
	}
	return "", NoEligibleNode
}

func (f *Field) candidates(svc Service, pool string) ([]Candidate, Reason) {
	ads, reason := Advertisements(svc, pool, f.L2Advertisements)
	if reason != "" {
		return nil, reason
	}
	return Eligible(svc, ads, f.Nodes)
}

// routers returns why no node may tell routers of a Service; "" if that depends on the node.
func (f *Field) routers(svc Service, pool string) Reason {
	switch {
	case !slices.ContainsFunc(f.BGPAdvertisements, func(ad *config.BGPAdvertisement) bool {
		return ad.Announces(pool) && ad.SelectsService(svc.Labels)
	}):
		return NoAdvertisement
	case len(svc.Serving) == 0:
		return NoServingEndpoint
	}
	return ""
}

// Route returns why the node may not tell routers of the address; "" if it may.
func (f *Field) Route(svc Service, addr netip.Addr, pool string, n *Node) Reason {
	switch {
	case !n.Live:
		return NoLiveSpeaker
	case n.Leaving:
		return Leaving
	}
	var told []string
	for _, p := range PeersOf(n, f.BGPPeers) {
		if tells(p, addr) {
			told = append(told, p.Name)
		}
	}
	_, reason := Routes(svc, addr, pool, f.BGPAdvertisements, n, told)
	return reason
}

// tells tells whether a peer may be told of the address: its session is for its own family, or for both. Where only the node knows the
// peer's address, it may be.
func tells(p *config.BGPPeer, addr netip.Addr) bool {
	return !p.Address.IsValid() || p.DualStack || p.Address.Is4() == addr.Is4()
}

// Plea says why nobody may announce a Service's addresses, and how to mend it. addrs[i] is of pools[i]; service is its namespace/name.
func (f *Field) Plea(service string, svc Service, addrs []netip.Addr, pools []string) string {
	var text strings.Builder
	for i := 0; i < len(addrs); {
		names, why := addrs[i].String(), f.why(service, svc, addrs[i], pools[i])
		for i++; i < len(addrs) && f.why(service, svc, addrs[i], pools[i]) == why; i++ {
			names += " and " + addrs[i].String()
		}
		if text.Len() > 0 {
			text.WriteString(" ")
		}
		text.WriteString("Nobody announces " + names + ": " + why + ".")
	}
	return text.String()
}

// why says why nobody may announce one address.
func (f *Field) why(service string, svc Service, addr netip.Addr, pool string) string {
	switch _, reason := f.Announcer(svc, addr, pool); reason {
	case NoAdvertisement:
		return fmt.Sprintf("no L2Advertisement and no BGPAdvertisement is for both pool %s and this Service: create one, "+
			"or correct spec.ipAddressPools or spec.serviceSelectors of the one that should be", pool)
	case SharedWithServiceSelector:
		return f.tellingApart(svc, pool)
	case NoServingEndpoint:
		namespace, name, _ := strings.Cut(service, "/")
		return fmt.Sprintf("no endpoint of the Service serves: see that its selector matches pods and that they are ready: "+
			"`kubectl -n %s get endpointslices -l kubernetes.io/service-name=%s`", namespace, name)
	}
	return "no node may. " + f.eachNode(svc, addr, pool)
}

// tellingApart tells of the L2Advertisement that keeps the Service from being announced for sharing its address.
func (f *Field) tellingApart(svc Service, pool string) string {
	i := slices.IndexFunc(f.L2Advertisements, func(ad *config.L2Advertisement) bool {
		return slices.Contains(ad.Pools, pool) && len(ad.Services) > 0 && ad.SelectsService(svc.Labels)
	})
	return fmt.Sprintf("the Service shares its address with others, and L2Advertisement %q selects Services by their labels, "+
		"which neighbours that ask for an address don't see: take spec.serviceSelectors out of it, or the annotation steelyard.io/allow-shared-ip off the Service",
		f.L2Advertisements[i].Name)
}

// eachNode tells why each node is refused, protocol by protocol.
func (f *Field) eachNode(svc Service, addr netip.Addr, pool string) string {
	if len(f.Nodes) == 0 {
		return "No Node is known: see `kubectl get nodes`"
	}
	var parts []string
	switch ads, reason := Advertisements(svc, pool, f.L2Advertisements); reason {
	case "":
		var names []string
		for _, ad := range ads {
			names = append(names, ad.Name)
		}
		parts = append(parts, "On the local network, by L2Advertisement "+few(names)+": "+f.refusals(func(n *Node) Reason {
			_, reason := Judge(svc, ads, n)
			return reason
		}))
	case SharedWithServiceSelector:
		parts = append(parts, "On the local network: "+f.tellingApart(svc, pool))
	}
	if f.routers(svc, pool) == "" {
		var names []string
		for _, ad := range f.BGPAdvertisements {
			if ad.Announces(pool) && ad.SelectsService(svc.Labels) {
				names = append(names, ad.Name)
			}
		}
		parts = append(parts, "To routers, by BGPAdvertisement "+few(names)+": "+f.refusals(func(n *Node) Reason { return f.Route(svc, addr, pool, n) }))
	}
	return strings.Join(parts, ". ")
}

// refusals lists the nodes by why they are refused.
func (f *Field) refusals(why func(*Node) Reason) string {
	refused := map[Reason][]string{}
	var reasons []Reason
	for i := range f.Nodes {
		r := why(&f.Nodes[i])
		if refused[r] == nil {
			reasons = append(reasons, r)
		}
		refused[r] = append(refused[r], f.Nodes[i].Name)
	}
	texts := make([]string, len(reasons))
	for i, r := range reasons {
		words := Say(r)
		texts[i] = fmt.Sprintf("%s (%s: %s)", few(refused[r]), words.What, words.MendOn(refused[r]))
	}
	return strings.Join(texts, "; ")
}

// few lists names, the first ones if there are many.
func few(names []string) string {
	const most = 3
	list := strings.Join(names[:min(most, len(names))], ", ")
	if more := len(names) - most; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
