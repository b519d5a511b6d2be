package config

import (
	"net/netip"
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

// BFDProfile is a BFDProfile.
type BFDProfile struct {
	Name              string
	Transmit, Receive time.Duration
	Multiplier        uint8
	Passive           bool
	MinimumTTL        uint8
}
