package layer2

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// tap sends frames from an interface and sees all that it receives.
type tap struct {
	t    *testing.T
	conn *packet.Conn
	mac  mac
}

func (h *host) tap(name string) *tap {
	h.t.Helper()
	l := h.link(name)
	received := assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		bpf.RetConstant{Val: acceptWhole},
		bpf.RetConstant{Val: drop},
	})
	var conn *packet.Conn
	h.must(func() (err error) {
		conn, err = packet.Listen(&net.Interface{Index: l.Attrs().Index}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: received})
		return err
	})
	h.t.Cleanup(func() { conn.Close() })
	return &tap{h.t, conn, toMAC(l.Attrs().HardwareAddr)}
}

func (p *tap) send(frame []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[0:6]}); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next ARP packet or neighbour discovery message that another host sent.
func (p *tap) next() (heard, []byte) {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 1514)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			p.t.Fatalf("no further packet: %v", err)
		}
		for _, w := range []wire{arpWire{}, ndpWire{}} {
			if h, ok := w.parse(buf[:n], identity{mac: p.mac}); ok {
				return h, buf[:n]
			}
		}
	}
}

// claims returns the frames that claim addr, up to the first for which last is true.
func (p *tap) claims(addr netip.Addr, last func(heard, []byte) bool) [][]byte {
	p.t.Helper()
	var frames [][]byte
	for {
		h, frame := p.next()
		if last(h, frame) {
			return frames
		}
		if h.claims == addr {
			frames = append(frames, frame)
		}
	}
}

// claimsBefore returns the frames that claim addr before one that claims another.
func (p *tap) claimsBefore(addr, other netip.Addr) [][]byte {
	p.t.Helper()
	return p.claims(addr, func(h heard, _ []byte) bool { return h.claims == other })
}

// answers sends a question about addr and after it one about fence, and returns the claims to addr that came before the answer to that.
// An endpoint answers in the order of the questions, so that nothing has to be waited for.
func (p *tap) answers(question []byte, addr, fence netip.Addr) [][]byte {
	p.t.Helper()
	p.send(question)
	p.send(p.ask(fence))
	return p.claims(addr, func(h heard, frame []byte) bool { return h.claims == fence && mac(frame[0:6]) == p.mac })
}

// answered asks for addr, and reports whether it was told the address before that of fence.
func (p *tap) answered(addr, fence netip.Addr) bool {
	p.t.Helper()
	return slices.ContainsFunc(p.answers(p.ask(addr), addr, fence), func(frame []byte) bool { return mac(frame[0:6]) == p.mac })
}

// ask returns a broadcast or multicast question.
func (p *tap) ask(addr netip.Addr) []byte {
	if addr.Is4() {
		return p.request(broadcast, client4, addr)
	}
	group := solicitedNode(addr)
	return icmpFrame(&ndp.NeighborSolicitation{TargetAddress: addr, Options: []ndp.Option{p.option()}}, multicastMAC(group), p.mac, client6, group)
}

func (p *tap) request(to mac, from, addr netip.Addr) []byte {
	return arpFrame(arp.OperationRequest, to, p.mac, from, mac{}, addr)
}

func (p *tap) option() ndp.Option {
	return &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: p.mac.hardware()}
}

// announcementOf returns the packets with which a host announces addr.
func announcementOf(addr netip.Addr, host identity) [][]byte {
	if addr.Is4() {
		return arpWire{}.announce(addr, host)
	}
	return ndpWire{}.announce(addr, host)
}
