package layer2

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/icmp"
	"golang.org/x/sys/unix"
)

// ndpWire is Neighbor Discovery for IPv6 over Ethernet (RFC 4861, RFC 4862, RFC 2464).
//
// It works on whole frames, because that is where the link-layer address of a neighbour stands that sends no source link-layer address
// option, and because a probe has to come from the unspecified address, which the kernel's own sockets do not allow.
type ndpWire struct{}

const ipv6Header = 40

var allNodes = netip.MustParseAddr("ff02::1")

func (ndpWire) String() string { return "NDP" }

func (ndpWire) parse(frame []byte, me identity) (heard, bool) {
	if len(frame) < ethernetHeader+ipv6Header {
		return heard{}, false
	}
	// Bit 0 of the first octet: multicast.
	if to := mac(frame[0:6]); to != me.mac && to[0]&1 == 0 {
		return heard{}, false
	}
	ip := frame[ethernetHeader:]
	length := int(binary.BigEndian.Uint16(ip[4:6]))
	nextHeader, hopLimit := ip[6], ip[7]
	// A lower hop limit means that the packet came through a router, from off the link (RFC 4861 7.1).
	if ip[0]>>4 != 6 || nextHeader != unix.IPPROTO_ICMPV6 || hopLimit != ndp.HopLimit || length < 4 || len(ip) < ipv6Header+length {
		return heard{}, false
	}
	source, destination := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	body := ip[ipv6Header : ipv6Header+length]
	if body[1] != 0 || checksum(body, source, destination) != 0 {
		return heard{}, false
	}
	message, err := ndp.ParseMessage(body)
	if err != nil {
		return heard{}, false
	}
	h := heard{sender: mac(frame[6:12]), source: source}
	switch m := message.(type) {
	case *ndp.NeighborSolicitation:
		lla, hasLLA := linkLayerAddress(m.Options, ndp.Source)
		if m.TargetAddress.IsMulticast() || m.TargetAddress.Is4In6() || source.IsMulticast() {
			return heard{}, false
		}
		h.asks = m.TargetAddress
		if source.IsUnspecified() {
			// Duplicate address detection (RFC 4861 7.1.1, RFC 4862 5.4.3).
			if group, _ := ndp.SolicitedNodeMulticast(m.TargetAddress); destination != group || hasLLA {
				return heard{}, false
			}
			h.wants = m.TargetAddress
			break
		}
		h.claims = source
		// Without the option (RFC 4861 7.2.4) the answer goes to where the frame came from.
		if hasLLA {
			h.sender = lla
		}
	case *ndp.NeighborAdvertisement:
		if m.TargetAddress.IsMulticast() || m.Solicited && destination.IsMulticast() {
			return heard{}, false
		}
		h.claims = m.TargetAddress
		if lla, ok := linkLayerAddress(m.Options, ndp.Target); ok {
			h.sender = lla
		}
	default:
		return heard{}, false
	}
	if h.sender == me.mac {
		return heard{}, false
	}
	return h, true
}

// answer sets the override flag, because the target is neither anycast nor proxied: without it a client that still knows the former owner
// would keep to it (RFC 4861 7.2.4, 7.2.5). Who probes from the unspecified address is answered by way of all nodes.
func (ndpWire) answer(h heard, me identity) []byte {
	if h.source.IsUnspecified() {
		return advertisement(h.asks, false, multicastMAC(allNodes), allNodes, me)
	}
	return advertisement(h.asks, true, h.sender, h.source, me)
}

func (ndpWire) announce(addr netip.Addr, me identity) [][]byte {
	return [][]byte{advertisement(addr, false, multicastMAC(allNodes), allNodes, me)}
}

func (ndpWire) probe(addr netip.Addr, me identity) []byte {
	group := solicitedNode(addr)
	return icmpFrame(&ndp.NeighborSolicitation{TargetAddress: addr}, multicastMAC(group), me.mac, netip.IPv6Unspecified(), group)
}

func advertisement(target netip.Addr, solicited bool, to mac, destination netip.Addr, me identity) []byte {
	return icmpFrame(&ndp.NeighborAdvertisement{
		Solicited:     solicited,
		Override:      true,
		TargetAddress: target,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: me.mac.hardware()}},
	}, to, me.mac, me.linkLocal, destination)
}

func icmpFrame(m ndp.Message, to, from mac, source, destination netip.Addr) []byte {
	body, err := ndp.MarshalMessageChecksum(m, source, destination)
	if err != nil {
		panic("layer2: neighbour discovery message: " + err.Error())
	}
	packet := make([]byte, 0, ipv6Header+len(body))
	packet = append(packet, 6<<4, 0, 0, 0)
	packet = binary.BigEndian.AppendUint16(packet, uint16(len(body)))
	packet = append(packet, unix.IPPROTO_ICMPV6, ndp.HopLimit)
	packet = append(packet, source.AsSlice()...)
	packet = append(packet, destination.AsSlice()...)
	return ethernetFrame(to, from, unix.ETH_P_IPV6, append(packet, body...))
}

// checksum returns the Internet checksum (RFC 1071) of an ICMPv6 message: 0 if the message contains the right one, and the one to put in
// if it contains 0. A packet socket sees a message before the kernel has verified it.
func checksum(body []byte, source, destination netip.Addr) uint16 {
	pseudo := icmp.IPv6PseudoHeader(source.AsSlice(), destination.AsSlice())
	sum := uint32(len(body))
	for _, part := range [][]byte{pseudo, body} {
		for len(part) >= 2 {
			sum += uint32(binary.BigEndian.Uint16(part))
			part = part[2:]
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func linkLayerAddress(options []ndp.Option, direction ndp.Direction) (mac, bool) {
	for _, o := range options {
		if lla, ok := o.(*ndp.LinkLayerAddress); ok && lla.Direction == direction {
			return toMAC(lla.Addr), true
		}
	}
	return mac{}, false
}

// solicitedNode returns the multicast group in which a host listens for solicitations of addr (RFC 4291 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	group, err := ndp.SolicitedNodeMulticast(addr)
	if err != nil {
		panic("layer2: solicited-node group of an address that is not IPv6: " + err.Error())
	}
	return group
}

// multicastMAC returns the Ethernet address of an IPv6 group (RFC 2464 7).
func multicastMAC(group netip.Addr) mac {
	b := group.As16()
	return mac{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
