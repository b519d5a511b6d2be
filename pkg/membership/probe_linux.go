package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// prober asks nodes' kernels for ICMP echo replies (RFC 792, RFC 4443). The kernel answers while its processes are
// starved, stopped or gone. A nil prober asks nobody.
type prober struct {
	conn *net.IPConn
	v6   bool
	id   uint16
	// token tells replies to this process from those to another that picked the same identifier.
	token    [8]byte
	sequence atomic.Uint32
}

// newProber binds to the address from which memberlist sends, so that the echo takes the same way.
func newProber(bind netip.Addr, answered func(netip.Addr)) (*prober, error) {
	p := &prober{v6: bind.Is6(), id: uint16(rand.Uint32())}
	binary.BigEndian.PutUint64(p.token[:], rand.Uint64())
	network := "ip4:icmp"
	if p.v6 {
		network = "ip6:ipv6-icmp"
	}
	conn, err := net.ListenIP(network, &net.IPAddr{IP: bind.AsSlice()})
	if err != nil {
		return nil, fmt.Errorf("raw ICMP socket on %s: %w", bind, err)
	}
	p.conn = conn
	if err := p.filter(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("socket filter for ICMP on %s: %w", bind, err)
	}
	go p.receive(answered)
	return p, nil
}

// filter lets only echo replies to this prober through: a raw ICMP socket otherwise gets a copy of all the node's
// ICMP, neighbour discovery included.
func (p *prober) filter() error {
	// An IPv4 raw socket's filter sees the IP header, an IPv6 one's does not.
	reply, load := uint32(ipv4.ICMPTypeEchoReply), []bpf.Instruction{bpf.LoadMemShift{Off: 0}}
	if p.v6 {
		reply, load = uint32(ipv6.ICMPTypeEchoReply), []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: 0}}
	}
	program, err := bpf.Assemble(append(load,
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: reply, SkipTrue: 3},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(p.id), SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	))
	if err != nil {
		return err
	}
	if p.v6 {
		return ipv6.NewPacketConn(p.conn).SetBPF(program)
	}
	return ipv4.NewPacketConn(p.conn).SetBPF(program)
}

// ask sends one echo request.
func (p *prober) ask(to netip.Addr) error {
	if p == nil {
		return nil
	}
	m := icmp.Message{
		Type: ipv4.ICMPTypeEcho,
		Body: &icmp.Echo{ID: int(p.id), Seq: int(uint16(p.sequence.Add(1))), Data: p.token[:]},
	}
	if p.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // the kernel fills in ICMPv6's checksum
	if err != nil {
		return err
	}
	_, err = p.conn.WriteToIP(b, &net.IPAddr{IP: to.AsSlice()})
	return err
}

func (p *prober) receive(answered func(netip.Addr)) {
	const header = 8
	buffer := make([]byte, 128)
	for {
		n, from, err := p.conn.ReadFromIP(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < header+len(p.token) || [8]byte(buffer[header:]) != p.token {
			continue
		}
		if addr, ok := netip.AddrFromSlice(from.IP); ok {
			answered(addr.Unmap())
		}
	}
}

func (p *prober) close() {
	if p != nil {
		p.conn.Close()
	}
}
