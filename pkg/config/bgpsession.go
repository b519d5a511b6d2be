package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// place is where a peer is looked for on a node.
type place struct {
	address                   netip.Addr
	gateway, annotation, link string
}

func (p *BGPPeer) place() place {
	return place{p.Address, p.Gateway, p.Annotation, p.Interface}
}

// quarrel is between a peer and something else, on some nodes.
type quarrel struct {
	peer   string
	reason Reason
	other  string // the peer that goes first
}

// sessionFaults finds fault with peers that can't have a session on some of their nodes because of the node or of another peer there. Of
// two peers the first by name has its session, as the speakers decide it. The peers are in order.
func sessionFaults(peers []*BGPPeer, nodes []corev1.Node) []Fault {
	quarrels := map[quarrel][]string{} // the nodes
	for i := range nodes {
		node := &nodes[i]
		own := nodeAddresses(node)
		places := map[place]string{}
		var router *BGPPeer // gives the node its router ID
		for _, p := range peers {
			if !p.SelectsNode(node.Labels) {
				continue
			}
			note := func(reason Reason, other string) {
				q := quarrel{p.Name, reason, other}
				quarrels[q] = append(quarrels[q], node.Name)
			}
			first, taken := places[p.place()]
			switch {
			case router != nil && p.RouterID.IsValid() && p.RouterID != router.RouterID:
				note(ReasonRouterIDConflict, router.Name)
			case slices.Contains(own, p.Address):
				note(ReasonPeerIsNode, "")
			case taken:
				note(ReasonDuplicatePeer, first)
			default:
				places[p.place()] = p.Name
				if router == nil && p.RouterID.IsValid() {
					router = p
				}
			}
		}
	}
	var faults []Fault
	for _, q := range slices.SortedFunc(maps.Keys(quarrels), quarrel.compare) {
		nodes := quarrels[q]
		slices.Sort(nodes)
		i, _ := slices.BinarySearchFunc(peers, q.peer, func(p *BGPPeer, name string) int { return strings.Compare(p.Name, name) })
		f := complaints{kind: KindBGPPeer, name: q.peer}
		q.fault(peers[i], abridged(nodes, ", "), &f)
		faults = append(faults, f.faults...)
	}
	return faults
}

func (q quarrel) fault(p *BGPPeer, nodes string, f *complaints) {
	switch q.reason {
	case ReasonPeerIsNode:
		f.fault("spec.peerAddress", q.reason, fmt.Sprintf(
			"%s is an address of the node itself on %s: leave the node out by nodeSelectors, or write the router's address", p.Address, nodes))
	case ReasonDuplicatePeer:
		f.fault(p.placeField(), q.reason, fmt.Sprintf(
			"is the same as that of the BGPPeer %q, which has the session on %s: delete one of the two, or keep them apart by nodeSelectors", q.other, nodes))
	case ReasonRouterIDConflict:
		f.fault("spec.routerID", q.reason, fmt.Sprintf(
			"is another than that of the BGPPeer %q, and so there is no session on %s, because a node has one router ID: make both equal, or keep them apart by nodeSelectors",
			q.other, nodes))
	}
}

func (q quarrel) compare(other quarrel) int {
	return cmp.Or(strings.Compare(q.peer, other.peer), strings.Compare(string(q.reason), string(other.reason)), strings.Compare(q.other, other.other))
}

func (p *BGPPeer) placeField() string {
	switch {
	case p.Interface != "":
		return "spec.interface"
	case p.Gateway != "":
		return "spec.peerAddressFrom.defaultGateway"
	case p.Annotation != "":
		return "spec.peerAddressFrom.nodeAnnotation"
	}
	return "spec.peerAddress"
}
