package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// BGPAdvertisement is a BGPAdvertisement with its pools and communities resolved.
type BGPAdvertisement struct {
	Name string
	// Pools are the names of the pools that it announces, sorted; none when it selects none.
	Pools []string
	// Nodes and Services are alternatives; empty matches everything.
	Nodes, Services []labels.Selector
	// Peers are names of BGPPeers, sorted; empty for all.
	Peers []string
	// Length4 and Length6 are the lengths of the announced prefixes.
	Length4, Length6 int
	// Attributes is without a Bandwidth.
	Attributes        bgp.Attributes
	WeightByEndpoints bool
}

// Announces tells whether the pool is one of the advertisement's.
func (a *BGPAdvertisement) Announces(pool string) bool {
	_, ok := slices.BinarySearch(a.Pools, pool)
	return ok
}

// SelectsNode tells whether a node with these labels announces.
func (a *BGPAdvertisement) SelectsNode(node labels.Set) bool { return matches(a.Nodes, node) }

// SelectsService tells whether a Service with these labels is announced.
func (a *BGPAdvertisement) SelectsService(service labels.Set) bool {
	return matches(a.Services, service)
}

// BGPPeer is a BGPPeer whose BFDProfile is resolved. Where the peer is, on a node, and the password are not known here.
type BGPPeer struct {
	Name string
	// One of Address, Gateway ("IPv4" or "IPv6"), Annotation and Interface is set.
	Address    netip.Addr
	Gateway    string
	Annotation string
	Interface  string
	Port       uint16

	LocalASN uint32 // spec.localASN, or spec.myASN
	PeerASN  uint32 // 0: any other than LocalASN
	Source   netip.Addr
	Device   string
	RouterID netip.Addr // invalid: the node's
	Nodes    []labels.Selector

	Passive, Multihop, DualStack         bool
	TTLSecurity                          uint8
	HoldTime, KeepaliveTime, ConnectTime time.Duration
	RestartTime                          time.Duration // 0: no graceful restart
	ShutdownTime                         time.Duration // how long routes carry GRACEFUL_SHUTDOWN first
	Password, PasswordSecret             string        // at most one; the latter is a Secret's name
	BFD                                  *BFDProfile   // nil: none
}

// SelectsNode tells whether a node with these labels has a session with the peer.
func (p *BGPPeer) SelectsNode(node labels.Set) bool { return matches(p.Nodes, node) }

// BFDProfile is a BFDProfile.
type BFDProfile struct {
	Name              string
	Transmit, Receive time.Duration
	Multiplier        uint8
	Passive           bool
	MinimumTTL        uint8
}

// parseBGP fills in all that is about BGP; the pools must be there already.
func (c *Config) parseBGP(r *Resources) []Fault {
	profiles, faults := parseBFDProfiles(r.BFDProfiles)
	names, nameFaults := parseCommunities(r.Communities)
	faults = append(faults, nameFaults...)

	known := map[string]bool{}
	for i := range r.BGPPeers {
		known[r.BGPPeers[i].Name] = true
		peer, peerFaults := parseBGPPeer(&r.BGPPeers[i], profiles, r)
		faults = append(faults, peerFaults...)
		if peer != nil {
			c.BGPPeers = append(c.BGPPeers, peer)
		}
	}
	slices.SortFunc(c.BGPPeers, func(a, b *BGPPeer) int { return strings.Compare(a.Name, b.Name) })
	faults = append(faults, sessionFaults(c.BGPPeers, r.Nodes)...)

	for _, res := range oldestFirst(r.BGPAdvertisements) {
		ad, adFaults := parseBGPAdvertisement(res, names, known, c.Pools, r.Nodes)
		faults = append(faults, adFaults...)
		if ad != nil {
			c.BGPAdvertisements = append(c.BGPAdvertisements, ad)
		}
	}
	return append(faults, localPrefFaults(c.BGPAdvertisements, c.Pools, r.Nodes)...)
}
