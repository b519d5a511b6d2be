package layer2

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// mac is an Ethernet address that can be compared and used as a map key.
type mac [6]byte

var broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (m mac) hardware() net.HardwareAddr { return net.HardwareAddr(m[:]) }
func (m mac) String() string             { return m.hardware().String() }

// toMAC returns b as an Ethernet address; the zero mac when b has another length.
func toMAC(b []byte) mac {
	if len(b) != len(mac{}) {
		return mac{}
	}
	return mac(b)
}

// identity is what this node puts into the packets that it sends on one interface.
type identity struct {
	mac mac
	// linkLocal is the source of neighbour advertisements; unused for ARP.
	linkLocal netip.Addr
}

// heard is what an ARP packet or a neighbour discovery message means, whichever of the two it was.
type heard struct {
	// asks is the address whose link-layer address the sender wants to know; invalid if it asks nothing.
	asks netip.Addr
	// claims is the address that the sender says it holds; invalid if it says no such thing.
	claims netip.Addr
	// wants is the address that the sender is about to take and probes for (RFC 5227 2.1.1, RFC 4862 5.4.2); invalid if none.
	wants netip.Addr
	// sender and source are the link-layer and the protocol address to which an answer goes.
	sender mac
	source netip.Addr
}

// wire is a protocol that tells neighbours which link-layer address an IP address has. Its methods are pure; a packet is a whole Ethernet frame.
type wire interface {
	fmt.Stringer
	// parse returns false for frames that are malformed, not for this node, or sent by it.
	parse(frame []byte, me identity) (heard, bool)
	// answer returns the reply to h.asks.
	answer(h heard, me identity) []byte
	// announce returns the packets of one gratuitous announcement of addr.
	announce(addr netip.Addr, me identity) [][]byte
	// probe returns the question whether somebody else holds addr.
	probe(addr netip.Addr, me identity) []byte
}

const ethernetHeader = 14

// ethernetFrame returns payload with an Ethernet header before it.
func ethernetFrame(to, from mac, etherType uint16, payload []byte) []byte {
	b := make([]byte, 0, ethernetHeader+len(payload))
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}
