package explain

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

// endpoints counts a Service's endpoints, by node.
func endpoints(s *cluster.Snapshot, svc *corev1.Service) []Endpoints {
	byNode := map[string]*Endpoints{}
	counted := map[types.UID]bool{} // pods; in dual stack each is in a slice of either family
	for i := range s.EndpointSlices {
		slice := &s.EndpointSlices[i]
		if slice.Namespace != svc.Namespace || slice.Labels[discoveryv1.LabelServiceName] != svc.Name {
			continue
		}
		for j := range slice.Endpoints {
			node := ptr.Deref(slice.Endpoints[j].NodeName, "")
			if byNode[node] == nil {
				byNode[node] = &Endpoints{Node: node}
			}
			if pod := slice.Endpoints[j].TargetRef; pod != nil && pod.UID != "" {
				if counted[pod.UID] {
					continue
				}
				counted[pod.UID] = true
			}
			if announce.Serves(&slice.Endpoints[j]) {
				byNode[node].Serving++
			} else {
				byNode[node].NotServing++
			}
		}
	}
	var all []Endpoints
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		all = append(all, *byNode[node])
	}
	return all
}

// serving returns the nodes with endpoints that serve. Where endpoints are not known, every node may have some.
func (f *facts) serving(all []Endpoints) []string {
	var serving []string
	for _, e := range all {
		if e.Serving > 0 {
			serving = append(serving, e.Node)
		}
	}
	if !f.Knows(cluster.EndpointSlices) {
		for i := range f.nodes {
			serving = append(serving, f.nodes[i].Name)
		}
	}
	return serving
}

// liveNodes returns the nodes, and what is known of their speakers: from the speakers themselves or from their pods.
func liveNodes(s *cluster.Snapshot, views map[string]view.Service) []announce.Node {
	known := map[string]corev1.Node{}
	for i := range s.Nodes {
		known[s.Nodes[i].Name] = s.Nodes[i]
	}
	if !s.Knows(cluster.Nodes) {
		for _, name := range mentioned(s, views) {
			known[name] = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		}
	}
	var nodes []announce.Node
	for _, object := range known {
		node := announce.NodeOf(&object, s.IgnoresExclude())
		_, answers := views[node.Name]
		node.Live = answers || !s.Knows(cluster.Pods)
		for j := range s.Speakers {
			if pod := &s.Speakers[j]; pod.Spec.NodeName == node.Name {
				node.Live = node.Live || ready(pod)
				node.Leaving = node.Leaving || pod.DeletionTimestamp != nil
			}
		}
		nodes = append(nodes, node)
	}
	slices.SortFunc(nodes, func(a, b announce.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}

// mentioned returns the names of nodes that something else than a Node speaks of.
func mentioned(s *cluster.Snapshot, views map[string]view.Service) []string {
	names := slices.Collect(maps.Keys(views))
	for i := range s.Speakers {
		names = append(names, s.Speakers[i].Spec.NodeName)
	}
	for i := range s.Announcements {
		names = append(names, s.Announcements[i].Status.Node)
	}
	return names
}

// address finds out what each node makes of one of the Service's addresses.
func (f *facts) address(a netip.Addr, endpoints []Endpoints) Address {
	out := Address{Address: a}
	pool := f.cfg.PoolOf(a)
	if pool == nil && f.Knows(cluster.IPAddressPools) {
		return out
	}
	if pool == nil {
		pool = &config.Pool{} // what is announced is known all the same
	}
	out.Pool = pool.Name
	ads, refused := announce.Advertisements(f.spec, pool.Name, f.cfg.L2Advertisements)
	out.RefusedLayer2 = refused
	for _, ad := range ads {
		out.L2Advertisements = append(out.L2Advertisements, ad.Name)
	}
	for _, ad := range f.cfg.BGPAdvertisements {
		if ad.Announces(pool.Name) && ad.SelectsService(f.spec.Labels) {
			out.BGPAdvertisements = append(out.BGPAdvertisements, ad.Name)
		}
	}
	for i := range f.nodes {
		node := f.node(&f.nodes[i], a, pool.Name, ads)
		for _, e := range endpoints {
			if e.Node == node.Node {
				node.Endpoints = e.Serving
			}
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

// node returns what the node says of the address itself, or else what the API has of it and what follows from the configuration.
func (f *facts) node(n *announce.Node, a netip.Addr, pool string, ads []*config.L2Advertisement) Node {
	out := Node{Node: n.Name, Live: n.Live}
	for _, said := range f.views[n.Name].Addresses {
		if said.Address == a {
			out.Layer2, out.BGP, out.Carried = said.Layer2, said.BGP, said.Carried
			out.Down = f.down(n.Name, out.BGP.Peers)
			return out
		}
	}
	_, out.Layer2.Refused = announce.Judge(f.spec, ads, n)
	contributions, refused := announce.Routes(f.spec, a, pool, f.cfg.BGPAdvertisements, n, f.told(n, a))
	switch {
	case !n.Live && refused != announce.NoAdvertisement:
		out.BGP.Refused = announce.NoLiveSpeaker
	case len(contributions) == 0:
		out.BGP.Refused = refused
	}
	f.shown(&out, a)
	out.Down = f.down(n.Name, out.BGP.Peers)
	return out
}

// shown takes from the ServiceAnnouncements what the node announces of the address.
func (f *facts) shown(n *Node, a netip.Addr) {
	for i := range f.Announcements {
		status := &f.Announcements[i].Status
		if f.Announcements[i].Namespace != f.svc.Namespace || status.Service != f.svc.Name || status.Node != n.Node {
			continue
		}
		if l := status.Layer2; l != nil && slices.Contains(l.Addresses, a.String()) {
			n.Layer2.Announced, n.Layer2.Interfaces, n.Layer2.Owner = true, l.Interfaces, n.Node
		}
		if b := status.BGP; b != nil {
			for _, text := range b.Prefixes {
				if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Contains(a) {
					n.BGP.Prefixes, n.BGP.Peers = append(n.BGP.Prefixes, prefix), b.Peers
				}
			}
		}
	}
}

// told returns the names of the BGPPeers that the node has a session with and that are told of the address's family, sorted.
func (f *facts) told(n *announce.Node, a netip.Addr) []string {
	var names []string
	for _, p := range announce.PeersOf(n, f.cfg.BGPPeers) {
		session := f.session(n.Name, p.Name)
		if session != nil && session.State == refusedState {
			continue
		}
		address := p.Address
		if !address.IsValid() && session != nil {
			address, _ = netip.ParseAddr(session.Address)
		}
		if p.DualStack || p.Interface != "" || !address.IsValid() || address.Is4() == a.Is4() {
			names = append(names, p.Name)
		}
	}
	return names
}

// refusedState is the state of a BGPSession that the node can't have.
const refusedState = "Refused"

// session returns the state of a node's session with a peer, or nil when nothing is known of it.
func (f *facts) session(node, peer string) *v1beta1.BGPSessionStatus {
	for i := range f.Sessions {
		if status := &f.Sessions[i].Status; status.Node == node && status.Peer == peer {
			return status
		}
	}
	return nil
}

// down returns those of the peers to which the node's session is not up.
func (f *facts) down(node string, peers []string) []string {
	if !f.Knows(cluster.Sessions) {
		return nil
	}
	var down []string
	for _, peer := range peers {
		if session := f.session(node, peer); session == nil || session.State != string(bgp.Established) {
			down = append(down, peer)
		}
	}
	return down
}
