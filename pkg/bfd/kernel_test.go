package bfd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// eventually waits up to half a minute until the Statuses are as f wants them, which says what is wrong otherwise.
func eventually(t *testing.T, s *Speaker, f func(Status) string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var wrong []string
		for _, status := range s.Statuses() {
			if w := f(status); w != "" {
				wrong = append(wrong, fmt.Sprintf("%s: %+v", w, status))
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		time.Sleep(5 * ms)
	}
}

func isUp(s Status) string {
	if s.State != Up || s.TransmitInterval != s.Transmit {
		return "it is not up with its own interval"
	}
	return ""
}

func saysError(text string) func(Status) string {
	return func(s Status) string {
		if !strings.Contains(s.LastError, text) {
			return "it does not say " + text
		}
		return ""
	}
}

func addresses(host string) (v4, v6, link netip.Addr) {
	return netip.MustParseAddr("192.0.2." + host), netip.MustParseAddr("2001:db8::" + host), netip.MustParseAddr("fe80::" + host + "%eth0")
}

func TestSessionsOfAllKinds(t *testing.T) {
	here, there := newBoxes(t)
	all := func(host string) (sessions []Session) {
		v4, v6, link := addresses(host)
		sessions = []Session{
			{Peer: v4}, {Peer: v6}, {Peer: link}, {Peer: v4, Multihop: true, MinimumTTL: 255}, {Peer: v6, Multihop: true, MinimumTTL: 255},
		}
		for i := range sessions {
			sessions[i].Transmit, sessions[i].Receive = 100*ms, 100*ms
		}
		return sessions
	}
	a, b := here.speak(all("1")...), there.speak(all("11")...)
	eventually(t, a, isUp)
	eventually(t, b, isUp)
	v4, v6, link := addresses("11")
	ports := map[uint16]bool{}
	for _, s := range a.Statuses() {
		want := v4
		if s.Peer.Zone() != "" {
			want = link.WithZone("")
		} else if s.Peer.Is6() {
			want = v6
		}
		if s.Source != want || s.LastError != "" {
			t.Errorf("packets to %s come from %s, %s", s.Peer, s.Source, s.LastError)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.sessions {
		if x.port < firstPort || ports[x.port] {
			t.Errorf("source port %d, of %v", x.port, ports)
		}
		ports[x.port] = true
	}
}

// TestOnTheWire has what RFC 5881 asks of a packet beside its payload.
func TestOnTheWire(t *testing.T) {
	here, there := newBoxes(t)
	for _, v6 := range []bool{false, true} {
		v4, peer, _ := addresses("1")
		level, options := unix.IPPROTO_IPV6, []int{unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS}
		if !v6 {
			peer = v4
			level, options = unix.IPPROTO_IP, []int{unix.IP_RECVTTL, unix.IP_RECVTOS}
		}
		var c *net.UDPConn
		there.do(func() (err error) {
			if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, 3784))); err != nil {
				return err
			}
			raw, err := c.SyscallConn()
			if err != nil {
				return err
			}
			return raw.Control(func(fd uintptr) {
				for _, option := range options {
					err = errors.Join(err, unix.SetsockoptInt(int(fd), level, option, 1))
				}
			})
		})
		t.Cleanup(func() { c.Close() })
		here.speak(Session{Peer: peer, Receive: 123 * ms})
		payload, control := make([]byte, 100), make([]byte, 100)
		n, nc, _, from, err := c.ReadMsgUDPAddrPort(payload, control)
		if err != nil {
			t.Fatal(err)
		}
		p, why := parse(payload[:n])
		if n != packetLength || why != "" || p.state != Down || p.requiredRx != 123*ms || p.desiredTx != time.Second || from.Port() < firstPort {
			t.Errorf("from %s came %d bytes, %+v", from, n, p)
		}
		messages, err := unix.ParseSocketControlMessage(control[:nc])
		if err != nil || len(messages) != 2 {
			t.Fatal(err, messages)
		}
		for _, m := range messages {
			switch kind := int(m.Header.Type); {
			case kind == unix.IP_TTL || kind == unix.IPV6_HOPLIMIT:
				if m.Data[0] != 255 {
					t.Errorf("its TTL is %d", m.Data[0])
				}
			case m.Data[0] != trafficClass:
				t.Errorf("its traffic class is %#x", m.Data[0])
			}
		}
	}
}

func TestTroubleOnTheNode(t *testing.T) {
	v4, _, _ := addresses("1")
	nowhere := netip.MustParseAddr("203.0.113.1")
	t.Run("nobody listens", func(t *testing.T) {
		here, _ := newBoxes(t)
		eventually(t, here.speak(Session{Peer: v4}), saysError("listens to no BFD packets on UDP port 3784"))
	})
	t.Run("no route", func(t *testing.T) {
		here, _ := newBoxes(t)
		eventually(t, here.speak(Session{Peer: nowhere, Multihop: true}), saysError("network is unreachable"))
	})
	t.Run("not our address", func(t *testing.T) {
		here, _ := newBoxes(t)
		eventually(t, here.speak(Session{Peer: v4, Local: nowhere}), saysError("binding to local address 203.0.113.1"))
	})
	t.Run("no device", func(t *testing.T) {
		here, _ := newBoxes(t)
		eventually(t, here.speak(Session{Peer: v4, Device: "eth9"}), saysError("eth9"))
	})
	t.Run("another daemon has the port, and gives it up", func(t *testing.T) {
		here, there := newBoxes(t)
		var c net.PacketConn
		here.do(func() (err error) {
			c, err = net.ListenPacket("udp4", ":3784")
			return err
		})
		own, _, _ := addresses("11")
		there.speak(Session{Peer: own})
		s := here.speak(Session{Peer: v4})
		eventually(t, s, saysError("another BFD daemon"))
		c.Close()
		eventually(t, s, isUp)
	})
	t.Run("another daemon would share the port", func(t *testing.T) {
		here, _ := newBoxes(t)
		s := here.speak(Session{Peer: v4}, Session{Peer: v4, Device: "eth0"})
		eventually(t, s, saysError("listens to no BFD packets"))
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return err
		}}
		here.do(func() error {
			c, err := config.ListenPacket(t.Context(), "udp4", ":3784")
			if err == nil {
				c.Close()
				t.Error("it gets the port")
			}
			return nil
		})
	})
	t.Run("a router between them", func(t *testing.T) {
		here, there := newBoxes(t)
		s := here.speak(Session{Peer: v4})
		eventually(t, s, func(s Status) string {
			if s.PacketsOut == 0 {
				return "it has not begun"
			}
			return ""
		})
		there.do(func() error {
			c, err := net.Dial("udp", "192.0.2.11:3784")
			if err != nil {
				return err
			}
			for range 3 { // its TTL is 64, as that of packets from afar may be
				if _, err := c.Write(packet{state: Down, multiplier: 3, mine: 1}.append(nil)); err != nil {
					return err
				}
			}
			return c.Close()
		})
		eventually(t, s, saysError("a TTL of 64"))
		if s := s.Statuses()[0]; s.PacketsIn != 0 || s.State != Down {
			t.Errorf("%+v", s)
		}
	})
}

func TestDeviceComesBack(t *testing.T) {
	here, there := newBoxes(t)
	v4, _, link := addresses("1")
	own4, _, ownLink := addresses("11")
	a := here.speak(Session{Peer: v4, Device: "eth0"}, Session{Peer: link})
	b := there.speak(Session{Peer: own4, Device: "eth0"}, Session{Peer: ownLink})
	eventually(t, a, isUp)
	eventually(t, b, isUp)
	here.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	eventually(t, a, func(s Status) string {
		if s.State == Up || !s.Failed {
			return "it has not failed"
		}
		return ""
	})
	cable(t, here, there)
	eventually(t, a, isUp)
	eventually(t, b, isUp)
	for _, s := range a.Statuses() {
		if s.Ups != 2 || s.Downs != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// TestKernelAllocatesNothing sends to itself: both ways through the kernel without an allocation.
func TestKernelAllocatesNothing(t *testing.T) {
	here, _ := newBoxes(t)
	for _, addr := range []string{"192.0.2.11", "2001:db8::11"} {
		here.do(func() error {
			peer := netip.MustParseAddr(addr)
			inbox := make(chan received)
			k := newKernel(inbox)
			defer k.close()
			e := Session{Peer: peer}.key().endpoint()
			if failed := k.listen(map[endpoint]bool{e: true}); len(failed) > 0 {
				return failed[e]
			}
			p, err := k.open(Session{Peer: peer}, netip.Addr{}, firstPort)
			if err != nil {
				return err
			}
			defer p.close()
			b := good.append(nil)
			var r received
			if n := testing.AllocsPerRun(500, func() {
				if err := p.send(b); err != nil {
					panic(err)
				}
				r = <-inbox
			}); n > 0 {
				t.Errorf("%v allocations for each packet", n)
			}
			if r.packet != good || r.peer != peer || r.local != peer || r.ttl != 255 || r.endpoint != e {
				t.Errorf("it arrived as %+v", r)
			}
			return nil
		})
	}
}

func TestDrain(t *testing.T) {
	here, _ := newBoxes(t)
	here.do(func() error {
		peer := netip.MustParseAddr("192.0.2.11")
		inbox := make(chan received) // nobody reads it: the listener's goroutine holds one packet, and the rest stays in the kernel
		k := newKernel(inbox)
		defer k.close()
		e := Session{Peer: peer}.key().endpoint()
		k.listen(map[endpoint]bool{e: true})
		p, err := k.open(Session{Peer: peer}, netip.Addr{}, firstPort)
		if err != nil {
			return err
		}
		defer p.close()
		b := good.append(nil)
		const sent = 100
		for range sent {
			if err := p.send(b); err != nil {
				return err
			}
		}
		n := 0
		k.drain(func(r *received) {
			if r.packet == good {
				n++
			}
		})
		if n < sent-1 {
			t.Errorf("%d of %d packets were read", n, sent)
		}
		return nil
	})
}

// TestThousandsInTheKernel has 2,000 sessions with itself, on the loopback interface.
func TestThousandsInTheKernel(t *testing.T) {
	here, _ := newBoxes(t)
	pairs := func(n int) (sessions []Session) {
		for i := range n {
			a, b := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{127, 2, byte(i >> 8), byte(i)})
			for _, s := range []Session{{Peer: a, Local: b}, {Peer: b, Local: a}} {
				s.Transmit, s.Receive, s.Multiplier = time.Second, time.Second, 20
				sessions = append(sessions, s)
			}
		}
		return sessions
	}
	s := here.speak(pairs(1)...)
	eventually(t, s, isUp)
	before := runtime.NumGoroutine()
	s.Sync(pairs(1000))
	eventually(t, s, isUp)
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("there are %d goroutines for 2 sessions, and %d for 2000", before, after)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ports := map[uint16]bool{}
	for _, x := range s.sessions {
		ports[x.port] = true
		if x.downs > 0 {
			t.Errorf("%+v", x.machine)
		}
	}
	if len(ports) != 2000 || len(s.ports) != 2000 {
		t.Errorf("they have %d source ports, %d are taken", len(ports), len(s.ports))
	}
}
