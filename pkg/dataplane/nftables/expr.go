package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// family holds what differs between the tables of IPv4 and IPv6.
type family struct {
	dataplane.Family
	addrRegs     uint32 // 32-bit registers that an address takes
	saddr, daddr uint32 // offsets in the IP header
}

var (
	ipv4 = family{dataplane.IPv4, 1, 12, 16}
	ipv6 = family{dataplane.IPv6, 4, 8, 24}
)

// Expressions pass values through sixteen 32-bit registers. Keys are loaded from the first one on, and endpoints into the second one and
// those after it; then comes the id of a Service's port, then the client's address or the index of an endpoint.
const (
	keyReg      = 0
	endpointReg = 1
)

// idReg follows the endpoint's address and port.
func (f family) idReg() uint32 { return endpointReg + f.addrRegs + 1 }

// indexReg follows a service key.
func (f family) indexReg() uint32 { return keyReg + f.addrRegs + 2 }

func (f family) addrLen() uint32 { return f.addrRegs * 4 }

func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

type exprs []expr.Any

func join(parts ...exprs) exprs { return slices.Concat(parts...) }

func (f family) load(offset, n uint32) exprs {
	return exprs{&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: reg(n), Base: expr.PayloadBaseNetworkHeader,
		Offset: offset, Len: f.addrLen()}}
}

func l4proto(n uint32) exprs { return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(n)}} }

// dport is at the same place in TCP, UDP and SCTP. What it reads in other protocols finds nothing, since the protocol is part of each key.
func dport(n uint32) exprs {
	return exprs{&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: reg(n), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// serviceKey loads address, protocol and port that the packet is for.
func (f family) serviceKey() exprs {
	return join(f.load(f.daddr, keyReg), l4proto(keyReg+f.addrRegs), dport(keyReg+f.addrRegs+1))
}

// nodePortKey loads protocol and port.
func (f family) nodePortKey() exprs { return join(l4proto(keyReg), dport(keyReg+1)) }

// lookup ends the rule unless the map has the key that starts in register from; it leaves the value in register to.
func lookup(set string, from, to uint32) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(from), DestRegister: reg(to), IsDestRegSet: true, SetName: set}}
}

func lookupVerdict(set string, from uint32) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(from), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set}}
}

func in(set string, from uint32) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(from), SetName: set}}
}

func notIn(set string, from uint32) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(from), SetName: set, Invert: true}}
}

func compare(op expr.CmpOp, n uint32, data []byte) exprs {
	return exprs{&expr.Cmp{Op: op, Register: reg(n), Data: data}}
}

func mask(n uint32, m []byte) exprs {
	return exprs{&expr.Bitwise{SourceRegister: reg(n), DestRegister: reg(n), Len: uint32(len(m)), Mask: m, Xor: make([]byte, len(m))}}
}

// addrIn compares the address at the offset with a prefix of the family.
func (f family) addrIn(op expr.CmpOp, offset uint32, p netip.Prefix) exprs {
	load := f.load(offset, keyReg)
	if !p.IsSingleIP() {
		m := make([]byte, f.addrLen())
		for i := range p.Bits() {
			m[i/8] |= 0x80 >> (i % 8)
		}
		load = join(load, mask(keyReg, m))
	}
	return join(load, compare(op, keyReg, p.Masked().Addr().AsSlice()))
}

// notLoopback ends the rule for packets to the loopback's addresses: the kernel drops them as martians once they are translated, unless
// route_localnet is set, which opens the host's local services to its neighbours (CVE-2020-8558).
func (f family) notLoopback() exprs {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if f.Family == dataplane.IPv6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	return f.addrIn(expr.CmpOpNeq, f.daddr, loopback)
}

// interfaceHas compares the start of the name of the interface that the packet came in by.
func interfaceHas(prefix string) exprs {
	return join(exprs{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(keyReg)}}, compare(expr.CmpOpEq, keyReg, []byte(prefix)))
}

// local ends the rule unless the packet's source or destination is an address of this host.
func local(source bool) exprs {
	return join(exprs{&expr.Fib{Register: reg(keyReg), ResultADDRTYPE: true, FlagSADDR: source, FlagDADDR: !source}},
		compare(expr.CmpOpEq, keyReg, u32(unix.RTN_LOCAL)))
}

func ctHas(key expr.CtKey, bit uint32) exprs {
	return join(exprs{&expr.Ct{Key: key, Register: reg(keyReg)}}, mask(keyReg, u32(bit)), compare(expr.CmpOpNeq, keyReg, u32(0)))
}

func ctNew() exprs { return ctHas(expr.CtKeySTATE, expr.CtStateBitNEW) }

// ctTranslated means IPS_DST_NAT.
func ctTranslated() exprs { return ctHas(expr.CtKeySTATUS, 1<<5) }

func loadMark(n uint32) exprs { return exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(n)}} }

func hasMark(bit uint32) exprs {
	return join(loadMark(keyReg), mask(keyReg, u32(bit)), compare(expr.CmpOpNeq, keyReg, u32(0)))
}

// setMark sets or clears one bit of the mark; the others belong to somebody else.
func setMark(bit uint32, on bool) exprs {
	xor := uint32(0)
	if on {
		xor = bit
	}
	return exprs{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(keyReg)},
		&expr.Bitwise{SourceRegister: reg(keyReg), DestRegister: reg(keyReg), Len: 4, Mask: u32(^bit), Xor: u32(xor)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(keyReg), SourceRegister: true},
	}
}

// masquerade picks source ports at random, since two connections that pick the same port at once lose a packet (nf_nat clash).
func masquerade() exprs { return exprs{&expr.Masq{FullyRandom: true}} }

func random(n uint32, modulus int) exprs {
	return exprs{&expr.Numgen{Register: reg(n), Modulus: uint32(modulus), Type: unix.NFT_NG_RANDOM}}
}

func (f family) translate() exprs {
	fam := uint32(unix.NFPROTO_IPV4)
	if f.Family == dataplane.IPv6 {
		fam = unix.NFPROTO_IPV6
	}
	return exprs{&expr.NAT{Type: expr.NATTypeDestNAT, Family: fam, RegAddrMin: reg(endpointReg), RegProtoMin: reg(endpointReg + f.addrRegs)}}
}

func isTCP() exprs {
	return join(l4proto(keyReg), compare(expr.CmpOpEq, keyReg, []byte{unix.IPPROTO_TCP}))
}

func reset() exprs { return exprs{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

func (f family) unreachable() exprs {
	code := uint8(3) // ICMP_PORT_UNREACH
	if f.Family == dataplane.IPv6 {
		code = 4 // ICMPV6_PORT_UNREACH
	}
	return exprs{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}

func jump(chain string) exprs { return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }
func gotoChain(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
func verdict(kind expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: kind}} }

func u32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

// The bytes of keys and values. In a concatenation each part fills whole registers.

func addrBytes(a netip.Addr) string { return string(a.AsSlice()) }

func portBytes(port uint16) string {
	return string(binary.BigEndian.AppendUint16(nil, port)) + "\x00\x00"
}

func protoBytes(p dataplane.Protocol) string { return string([]byte{byte(p), 0, 0, 0}) }

func numBytes(n uint32) string { return string(u32(n)) }

func addrPortBytes(ap netip.AddrPort) string { return addrBytes(ap.Addr()) + portBytes(ap.Port()) }
