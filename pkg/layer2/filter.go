package layer2

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// The socket filters keep everything else that happens on the network from waking this process.

const (
	acceptWhole = 0x40000
	drop        = 0
)

// notForUs begins every filter: it drops frames that the interface saw but that are meant for another host, and frames of VLANs
// that this interface does not carry; the kernel marks both as PACKET_OTHERHOST. (bpf.VM does not know the extension.)
func notForUs(rest []bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: 1},
		bpf.RetConstant{Val: drop},
	}, rest...)
}

// span is the smallest range that contains all IPv4 addresses of interest; its zero value contains none. Pools are ranges, so two
// comparisons keep out most of what the other hosts of the network ask each other.
type span struct {
	from, to netip.Addr
}

func (s span) with(a netip.Addr) span {
	if !s.from.IsValid() {
		return span{a, a}
	}
	if a.Less(s.from) {
		s.from = a
	}
	if s.to.Less(a) {
		s.to = a
	}
	return s
}

// arpFilter passes ARP requests and replies, IPv4 over Ethernet, whose target or sender is within s.
func arpFilter(s span) []bpf.Instruction {
	if !s.from.IsValid() {
		return []bpf.Instruction{bpf.RetConstant{Val: drop}}
	}
	from, to := ipv4Word(s.from), ipv4Word(s.to)
	return []bpf.Instruction{
		// Ethernet, IPv4.
		bpf.LoadAbsolute{Off: ethernetHeader, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 1<<16 | unix.ETH_P_IP, SkipTrue: 9},
		// Address lengths 6 and 4, request (1) or reply (2).
		bpf.LoadAbsolute{Off: ethernetHeader + 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0604_0001, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0604_0002, SkipTrue: 6},
		// Target address, sender address.
		bpf.LoadAbsolute{Off: ethernetHeader + 24, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: from, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: to, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ethernetHeader + 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: from, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: to, SkipTrue: 1},
		bpf.RetConstant{Val: drop},
		bpf.RetConstant{Val: acceptWhole},
	}
}

// ndpFilter passes neighbour solicitations and advertisements from this link.
func ndpFilter() []bpf.Instruction {
	return []bpf.Instruction{
		// Next header and hop limit.
		bpf.LoadAbsolute{Off: ethernetHeader + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6<<8 | 255, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ethernetHeader + ipv6Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeNeighborSolicitation), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeNeighborAdvertisement), SkipTrue: 1},
		bpf.RetConstant{Val: drop},
		bpf.RetConstant{Val: acceptWhole},
	}
}

func assemble(program []bpf.Instruction) []bpf.RawInstruction {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic(fmt.Sprintf("layer2: socket filter: %v", err))
	}
	return raw
}

func ipv4Word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
