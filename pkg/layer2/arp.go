package layer2

import (
	"net/netip"

	"github.com/mdlayher/arp"
	"golang.org/x/sys/unix"
)

// arpWire is the Address Resolution Protocol for IPv4 over Ethernet (RFC 826, RFC 5227).
type arpWire struct{}

func (arpWire) String() string { return "ARP" }

func (arpWire) parse(frame []byte, me identity) (heard, bool) {
	if len(frame) < ethernetHeader {
		return heard{}, false
	}
	if to := mac(frame[0:6]); to != broadcast && to != me.mac {
		return heard{}, false
	}
	var p arp.Packet
	if err := p.UnmarshalBinary(frame[ethernetHeader:]); err != nil {
		return heard{}, false
	}
	if p.HardwareType != 1 || p.ProtocolType != unix.ETH_P_IP || p.HardwareAddrLength != 6 || p.IPLength != 4 {
		return heard{}, false
	}
	h := heard{sender: toMAC(p.SenderHardwareAddr), source: p.SenderIP}
	if h.sender == me.mac || p.TargetIP.IsUnspecified() && p.Operation == arp.OperationRequest {
		return heard{}, false
	}
	switch {
	case p.Operation == arp.OperationRequest && p.SenderIP.IsUnspecified():
		// An ARP probe. The holder of the address answers it like any request (RFC 5227 2.4).
		h.asks, h.wants = p.TargetIP, p.TargetIP
	case p.Operation == arp.OperationRequest && p.SenderIP == p.TargetIP:
		// An announcement asks nothing (RFC 5227 2.3).
		h.claims = p.SenderIP
	case p.Operation == arp.OperationRequest:
		h.asks, h.claims = p.TargetIP, p.SenderIP
	case p.Operation == arp.OperationReply && !p.SenderIP.IsUnspecified():
		h.claims = p.SenderIP
	default:
		return heard{}, false
	}
	return h, true
}

func (arpWire) answer(h heard, me identity) []byte {
	return arpFrame(arp.OperationReply, h.sender, me.mac, h.asks, h.sender, h.source)
}

// announce sends both forms, because some neighbours learn from requests only and others from replies only. The target hardware address
// of the reply is the sender's own (RFC 5944 4.6): without it Linux takes the packet for an ordinary reply, and ignores it for a
// second after the last change of the neighbour entry, which is just when an address moves.
func (arpWire) announce(addr netip.Addr, me identity) [][]byte {
	return [][]byte{
		arpFrame(arp.OperationRequest, broadcast, me.mac, addr, mac{}, addr),
		arpFrame(arp.OperationReply, broadcast, me.mac, addr, me.mac, addr),
	}
}

func (arpWire) probe(addr netip.Addr, me identity) []byte {
	return arpFrame(arp.OperationRequest, broadcast, me.mac, netip.IPv4Unspecified(), mac{}, addr)
}

func arpFrame(op arp.Operation, to, sender mac, senderIP netip.Addr, target mac, targetIP netip.Addr) []byte {
	p, err := arp.NewPacket(op, sender.hardware(), senderIP, target.hardware(), targetIP)
	if err != nil {
		panic("layer2: ARP packet from addresses that are not IPv4: " + err.Error())
	}
	b, err := p.MarshalBinary()
	if err != nil {
		panic("layer2: ARP packet: " + err.Error())
	}
	return ethernetFrame(to, sender, unix.ETH_P_ARP, b)
}
