// Package bgp says what routers are told and by which sessions, in types of our own. An Engine makes it so; package gobgp has one, and
// package process runs it beside the speaker.
package bgp

import (
	"net/netip"
	"time"
)

// Engine keeps the sessions of one node and announces its routes.
type Engine interface {
	// Sync makes sessions and routes what they are to be, and returns at once. It touches a session only if something about that
	// session differs, and ends it only if the protocol leaves no other way. It is idempotent.
	Sync(Desired)
	// Reset ends the peer's session now, as if the peer had gone, forgetting any grace that was agreed on; it comes up again when the
	// peer can be reached. BFD calls it.
	Reset(peer, why string)
	// Sessions tells how things stand, sorted by peer.
	Sessions() []Session
	// Changed says that a session's State, LastError or Announced may be another now.
	Changed() <-chan struct{}
}

// Desired is what a node is to announce, and to whom.
type Desired struct {
	// RouterID is the node's BGP identifier, an IPv4 address.
	RouterID netip.Addr
	// ListenPort is the TCP port where passive peers connect to; 0 for none.
	ListenPort uint16
	Peers      []Peer  // sorted by name, names and addresses (with zone) are unique
	Routes     []Route // sorted by prefix, prefixes are unique
}

// Peer is a router and how to talk to it.
type Peer struct {
	Name    string
	Address netip.Addr // with its zone if link-local
	Port    uint16
	// LocalASN is what the peer takes us for.
	LocalASN uint32
	// PeerASN is 0 for any that is not LocalASN.
	PeerASN uint32
	Source  netip.Addr // invalid: the kernel chooses
	Device  string     // the VRF or interface to bind to; "" for none
	Passive bool
	// Multihop: an eBGP peer that is not on our network. TTLSecurity is the number of hops that GTSM allows, 0 for no GTSM.
	Multihop                             bool
	TTLSecurity                          uint8
	Password                             string // TCP MD5; never to be logged
	HoldTime, KeepaliveTime, ConnectTime time.Duration
	// RestartTime is what the peer is asked to keep routes for when we are gone; 0 for no graceful restart.
	RestartTime time.Duration
	IPv4, IPv6  bool // the families that are announced
	// NextHop4 and NextHop6 are for routes of the family that is not the session's own; for the session's own it is the node's address
	// in the session.
	NextHop4, NextHop6 netip.Addr
}

// Route is a prefix and who is told what about it.
type Route struct {
	Prefix netip.Prefix
	Paths  []Path // a peer is in at most one of them
}

// Path is what some peers are told about a prefix. Equal attributes may be shared by many Paths and are not to be changed.
type Path struct {
	Peers      []string // names, sorted
	Attributes *Attributes
}

// Attributes is what goes with a prefix.
type Attributes struct {
	LocalPref uint32 // told to iBGP peers; 0: 100
	MED       uint32
	HasMED    bool
	Prepend   uint8 // how many more times our ASN stands in the AS path than it must
	// Communities are sorted and without duplicates.
	Communities []Community
	// Bandwidth goes into a link bandwidth community, in bytes per second; 0 for none.
	Bandwidth uint64
}

// State is how far a session has come (RFC 4271, section 8.2.2).
type State string

// The states of a session.
const (
	Idle        State = "Idle"
	Connect     State = "Connect"
	Active      State = "Active"
	OpenSent    State = "OpenSent"
	OpenConfirm State = "OpenConfirm"
	Established State = "Established"
)

// Session tells how a session with a peer stands.
type Session struct {
	Peer      string
	State     State
	Since     time.Time
	LastError string // why it last ended or did not come up; "" if it never failed
	Local     netip.Addr
	PeerASN   uint32
	// Announced is the number of prefixes that the peer is told, 0 unless Established.
	Announced int
	Counters  Counters
}

// Counters count messages since the engine's start.
type Counters struct {
	OpensSent, OpensReceived                 uint64
	UpdatesSent, UpdatesReceived             uint64
	KeepalivesSent, KeepalivesReceived       uint64
	NotificationsSent, NotificationsReceived uint64
	RefreshesSent, RefreshesReceived         uint64
	TotalSent, TotalReceived                 uint64
}
