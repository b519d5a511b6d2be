// Package bfd finds out within a fraction of a second that the way to a router has failed: it has BFD sessions in asynchronous mode over
// one hop and over many (RFC 5880, 5881, 5883). Echo, demand mode of its own, and authentication it has not.
package bfd

import (
	"net/netip"
	"strconv"
	"time"
)

// State is the state of a session; the numbers are those of the wire.
type State uint8

// The states of a session (RFC 5880, section 4.1).
const (
	AdminDown State = iota
	Down
	Init
	Up
)

func (s State) String() string {
	switch s {
	case AdminDown:
		return "AdminDown"
	case Down:
		return "Down"
	case Init:
		return "Init"
	case Up:
		return "Up"
	}
	return strconv.Itoa(int(s))
}

// Diagnostic says why a session's state last changed, other than to Up; the numbers are those of the wire.
type Diagnostic uint8

// The diagnostics that this package sends (RFC 5880, section 4.1).
const (
	NoDiagnostic         Diagnostic = 0
	DetectionTimeExpired Diagnostic = 1
	NeighborSignaledDown Diagnostic = 3
	PathDown             Diagnostic = 5
	AdministrativelyDown Diagnostic = 7
)

var diagnostics = [...]string{
	"no diagnostic", "control detection time expired", "echo function failed", "neighbor signaled session down", "forwarding plane reset",
	"path down", "concatenated path down", "administratively down", "reverse concatenated path down",
}

func (d Diagnostic) String() string {
	if int(d) < len(diagnostics) {
		return diagnostics[d]
	}
	return strconv.Itoa(int(d))
}

// What a Session's zero values stand for.
const (
	DefaultInterval   = 300 * time.Millisecond
	DefaultMultiplier = 3
)

// Session is a session that is wanted. Peer, Local, Device and Multihop say which one it is; the rest may change while it lasts.
type Session struct {
	Peer   netip.Addr // with its zone if link-local
	Local  netip.Addr // invalid: the kernel chooses, or the one that the peer sends to
	Device string     // the interface or VRF to bind to; "" for none
	// Multihop: the peer is not on our network.
	Multihop bool
	// Transmit is the least time between packets that we send, Receive the least that we ask the peer for; both up to 71 minutes, in whole
	// microseconds. Until a session is up, packets are a second apart at least.
	Transmit, Receive time.Duration
	// Multiplier is how many packets in a row the peer has to miss until it takes us for gone.
	Multiplier uint8
	// Passive sessions wait for the peer's first packet.
	Passive bool
	// MinimumTTL is the lowest TTL of packets that a Multihop session accepts. The others accept nothing below 255.
	MinimumTTL uint8
}

// key says which session it is. A zone is a device.
type key struct {
	peer, local netip.Addr // without zones
	device      string
	multihop    bool
}

func (s Session) key() key {
	k := key{peer: s.Peer.Unmap().WithZone(""), local: s.Local.Unmap().WithZone(""), device: s.Device, multihop: s.Multihop}
	if zone := s.Peer.Zone(); zone != "" {
		k.device = zone
	}
	return k
}

// complete returns the session with its zero values replaced, and with intervals that a packet can hold.
func (s Session) complete() Session {
	for _, d := range []*time.Duration{&s.Transmit, &s.Receive} {
		if *d <= 0 {
			*d = DefaultInterval
		}
		*d = max(time.Microsecond, min(d.Truncate(time.Microsecond), maxInterval))
	}
	if s.Multiplier == 0 {
		s.Multiplier = DefaultMultiplier
	}
	return s
}

func (s Session) port() uint16 {
	if s.Multihop {
		return 4784
	}
	return 3784
}

// Status tells how a session stands.
type Status struct {
	Session
	State      State
	Since      time.Time // when State was entered
	Diagnostic Diagnostic
	// Failed says that the session was up and ended because the peer could not be reached or said so. It is false when one side took the
	// session down on purpose, which is no reason to think that the peer is gone (RFC 5882, section 4.2), and when it is up again. It is
	// told more than once if other things change meanwhile; Downs tells one failure from the next.
	Failed bool
	// Source is the local address in use; invalid as long as nothing was sent.
	Source netip.Addr
	// RemoteState and RemoteDiagnostic are what the peer last said of itself.
	RemoteState                        State
	RemoteDiagnostic                   Diagnostic
	Discriminator, RemoteDiscriminator uint32 // the latter is 0 if the peer is not heard
	// TransmitInterval is the time between our packets, before jitter; 0 if the peer wants none. ReceiveInterval and DetectionTime are
	// what we expect of the peer; 0 if it is not heard.
	TransmitInterval, ReceiveInterval, DetectionTime time.Duration
	PacketsIn, PacketsOut                            uint64
	// Ups and Downs count the times that the session came up, and that it ceased to be.
	Ups, Downs uint64
	// LastError is what stands in the way on this node, or between it and the peer; "" if nothing is known to.
	LastError string
}
