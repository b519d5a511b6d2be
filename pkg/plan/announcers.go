package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// Announcer is a node that may announce a Service's addresses on the local network, or that tells a router of them.
type Announcer struct {
	Node string `json:"node"`
	// Peer is the name of the BGPPeer that is told; empty for the local network.
	Peer string `json:"peer,omitempty"`
}

func (a Announcer) compare(b Announcer) int {
	return cmp.Or(strings.Compare(a.Peer, b.Peer), strings.Compare(a.Node, b.Node))
}

// site is the cluster as those who announce see it, under one configuration.
type site struct {
	cfg     *config.Config
	nodes   []announce.Node
	peers   map[string][]*config.BGPPeer // by node
	serving map[types.NamespacedName]map[string]bool
}

func newSite(s *cluster.Snapshot, cfg *config.Config) *site {
	at := &site{cfg: cfg, peers: map[string][]*config.BGPPeer{}, serving: serving(s)}
	for i := range s.Nodes {
		node := announce.NodeOf(&s.Nodes[i], s.IgnoresExclude())
		// Before the speakers are installed, one is to be on each node.
		node.Live = len(s.Speakers) == 0 || slices.ContainsFunc(s.Speakers, func(pod corev1.Pod) bool { return pod.Spec.NodeName == node.Name })
		at.nodes = append(at.nodes, node)
		at.peers[node.Name] = sessions(s, &s.Nodes[i], &node, cfg)
	}
	return at
}

// sessions returns the peers that the node has a session with. Where a peer is found on the node itself only, it is taken to be there.
func sessions(s *cluster.Snapshot, n *corev1.Node, node *announce.Node, cfg *config.Config) []*config.BGPPeer {
	known := announce.Site{Found: map[string]netip.Addr{}, Listens: s.Listens()}
	for _, address := range n.Status.Addresses {
		if a, err := netip.ParseAddr(address.Address); err == nil {
			known.Own = append(known.Own, a)
		}
	}
	for i := range s.Sessions {
		if status := &s.Sessions[i].Status; status.Node == n.Name {
			if a, err := netip.ParseAddr(status.Address); err == nil {
				known.Found[status.Peer] = a
			}
		}
	}
	_, refused := announce.SessionsOf(node, known, cfg.BGPPeers)
	return slices.DeleteFunc(announce.PeersOf(node, cfg.BGPPeers), func(p *config.BGPPeer) bool {
		r, is := refused[p.Name]
		return is && r.Reason != announce.NoPeerAddress
	})
}

// serving returns the nodes with serving endpoints, by Service.
func serving(s *cluster.Snapshot) map[types.NamespacedName]map[string]bool {
	nodes := map[types.NamespacedName]map[string]bool{}
	for i := range s.EndpointSlices {
		slice := &s.EndpointSlices[i]
		name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
		for j := range slice.Endpoints {
			if !announce.Serves(&slice.Endpoints[j]) {
				continue
			}
			if nodes[name] == nil {
				nodes[name] = map[string]bool{}
			}
			nodes[name][ptr.Deref(slice.Endpoints[j].NodeName, "")] = true
		}
	}
	return nodes
}

// announcers returns who may announce each of a Service's addresses.
func (at *site) announcers(svc *corev1.Service, addrs []netip.Addr) map[netip.Addr][]Announcer {
	spec := announce.ServiceOf(svc)
	has := at.serving[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}]
	for i := range at.nodes {
		// A Service without any endpoints is to have some: else nothing could be said of it.
		if name := at.nodes[i].Name; has[name] || len(has) == 0 {
			spec.Serving = append(spec.Serving, name)
		}
	}
	if has[""] {
		spec.Serving = append(spec.Serving, "")
	}
	all := map[netip.Addr][]Announcer{}
	for _, a := range addrs {
		pool := at.cfg.PoolOf(a)
		if pool == nil {
			continue
		}
		ads, _ := announce.Advertisements(spec, pool.Name, at.cfg.L2Advertisements)
		candidates, _ := announce.Eligible(spec, ads, at.nodes)
		for _, c := range candidates {
			all[a] = append(all[a], Announcer{Node: c.Node})
		}
		for i := range at.nodes {
			all[a] = append(all[a], at.routes(spec, a, pool.Name, &at.nodes[i])...)
		}
	}
	return all
}

// routes returns the peers that the node tells of the address.
func (at *site) routes(spec announce.Service, a netip.Addr, pool string, node *announce.Node) []Announcer {
	if !node.Live {
		return nil
	}
	var told []string
	for _, p := range at.peers[node.Name] {
		if p.DualStack || family(p) == "" || family(p) == ipam.FamilyOf(a) {
			told = append(told, p.Name)
		}
	}
	contributions, _ := announce.Routes(spec, a, pool, at.cfg.BGPAdvertisements, node, told)
	var all []Announcer
	for _, c := range contributions {
		for _, peer := range c.Peers {
			all = append(all, Announcer{Node: node.Name, Peer: peer})
		}
	}
	return all
}

// family returns that of the session's addresses, which is the one that a peer is told of; "" for both, or if it is not known.
func family(p *config.BGPPeer) ipam.Family {
	if p.Address.IsValid() {
		return ipam.FamilyOf(p.Address)
	}
	return ipam.Family(p.Gateway)
}

// compareAnnouncers fills in who announces no longer, and who does then.
func (s *Service) compareAnnouncers(now, then map[netip.Addr][]Announcer) {
	if len(s.To) == 0 {
		return // without an address nobody announces it, which goes without saying
	}
	before, after := union(now), union(then)
	s.Gained = slices.DeleteFunc(slices.Clone(after), func(a Announcer) bool { return slices.Contains(before, a) })
	s.Lost = slices.DeleteFunc(slices.Clone(before), func(a Announcer) bool { return slices.Contains(after, a) })
	for _, to := range s.To {
		heard := slices.ContainsFunc(s.From, func(from netip.Addr) bool {
			return ipam.FamilyOf(from) == ipam.FamilyOf(to) && len(now[from]) > 0
		})
		if heard && len(then[to]) == 0 {
			s.Silent = append(s.Silent, to)
		}
	}
}

func union(announcers map[netip.Addr][]Announcer) []Announcer {
	var all []Announcer
	for _, some := range announcers {
		all = append(all, some...)
	}
	slices.SortFunc(all, Announcer.compare)
	return slices.Compact(all)
}
