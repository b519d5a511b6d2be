package announce

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Site is what of a node matters to the sessions that it can have.
type Site struct {
	// Own are the node's addresses, link-local ones with their zones.
	Own []netip.Addr
	// Found are the addresses, by the peers' names, of those whose BGPPeer does not give one.
	Found map[string]netip.Addr
	// Listens: peers can connect to the speaker.
	Listens bool
}

// Refusal says why a node has no session with a peer, and how to mend it.
type Refusal struct {
	Reason  Reason
	Message string
}

// PeersOf returns the peers that select the node, sorted by name as they are.
func PeersOf(node *Node, peers []*config.BGPPeer) []*config.BGPPeer {
	var mine []*config.BGPPeer
	for _, p := range peers {
		if p.SelectsNode(node.Labels) {
			mine = append(mine, p)
		}
	}
	return mine
}

// SessionsOf returns those of the peers, sorted by name as they are, that the node has a session with, and why it has none with others
// that select it. Of peers that can't go together, the first by name stays.
//
// A router ID or an interface belongs to the first peer even while its address is not known: if that appears, nobody else has to yield.
func SessionsOf(node *Node, site Site, peers []*config.BGPPeer) (mine []*config.BGPPeer, refused map[string]Refusal) {
	refused = map[string]Refusal{}
	s := sessions{node: node, site: site, byAddress: map[netip.Addr]string{}, byInterface: map[string]string{}}
	for _, p := range PeersOf(node, peers) {
		if r := s.admit(p); r.Reason != "" {
			refused[p.Name] = r
			continue
		}
		mine = append(mine, p)
	}
	return mine, refused
}

// sessions are those that a node has been found to have so far.
type sessions struct {
	node        *Node
	site        Site
	byAddress   map[netip.Addr]string
	byInterface map[string]string
	identified  *config.BGPPeer // the one that gives the node its router ID
}

func (s *sessions) admit(p *config.BGPPeer) Refusal {
	if p.Passive && !s.site.Listens {
		return refusal(NoListener, "spec.passive is set, but the speaker does not listen for peers: set bgp.listenPort in the chart's values, or take spec.passive out")
	}
	if other := s.identified; other != nil && p.RouterID.IsValid() && p.RouterID != other.RouterID {
		return refusal(OtherRouterID, "spec.routerID is %s, but BGPPeer %q gives node %s the router ID %s, and a node has one only: make them equal, "+
			"leave one of them out, or set spec.nodeSelectors so that they are for different nodes", p.RouterID, other.Name, s.node.Name, other.RouterID)
	}
	if other, taken := s.byInterface[p.Interface]; p.Interface != "" && taken {
		return refusal(SameInterface, "spec.interface is %s, where node %s has a session with BGPPeer %q already: delete one of the two, "+
			"or set spec.nodeSelectors so that they are for different nodes", p.Interface, s.node.Name, other)
	}
	address := p.Address
	if !address.IsValid() {
		address = s.site.Found[p.Name]
	}
	if slices.Contains(s.site.Own, address) {
		return refusal(OwnAddress, "the peer's address %s is one of node %s itself: correct it, or keep the peer from this node with spec.nodeSelectors",
			address, s.node.Name)
	}
	if other, taken := s.byAddress[address]; taken {
		return refusal(SameAddress, "node %s has a session with the address %s already, for BGPPeer %q: delete one of the two, "+
			"or set spec.nodeSelectors so that they are for different nodes", s.node.Name, address, other)
	}
	if s.identified == nil && p.RouterID.IsValid() {
		s.identified = p
	}
	if p.Interface != "" {
		s.byInterface[p.Interface] = p.Name
	}
	if !address.IsValid() {
		return s.notFound(p)
	}
	s.byAddress[address] = p.Name
	return Refusal{}
}

func (s *sessions) notFound(p *config.BGPPeer) Refusal {
	switch {
	case p.Gateway != "":
		return refusal(NoPeerAddress, "spec.peerAddressFrom.defaultGateway is %s, but node %s has no default route of that family with a gateway: "+
			"add one, or set spec.peerAddress", p.Gateway, s.node.Name)
	case p.Annotation != "":
		return refusal(NoPeerAddress, "spec.peerAddressFrom.nodeAnnotation is %s, but node %s has no such annotation with an IP address: "+
			"`kubectl annotate node %s %s=ADDRESS`", p.Annotation, s.node.Name, s.node.Name, p.Annotation)
	}
	return refusal(NoPeerAddress, "spec.interface is %s, but node %s has heard no router advertisement there: see that the interface is up, "+
		"and that the router sends them", p.Interface, s.node.Name)
}

func refusal(reason Reason, format string, args ...any) Refusal {
	return Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
