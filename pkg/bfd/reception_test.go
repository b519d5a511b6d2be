package bfd

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var (
	router = netip.MustParseAddr("192.0.2.1")
	own    = netip.MustParseAddr("192.0.2.11")
)

// recorder is a network that keeps what is sent.
type recorder struct {
	sent  []packet
	paths []*recordedPath
	err   error // of each packet sent
	heard map[endpoint]bool
	late  []received // what drain finds
}

type recordedPath struct {
	*recorder
	session Session
	local   netip.AddrPort
	closed  bool
}

func (n *recorder) listen(wanted map[endpoint]bool) map[endpoint]error {
	n.heard = wanted
	return nil
}

func (n *recorder) open(s Session, local netip.Addr, port uint16) (path, error) {
	if !local.IsValid() {
		local = own
	}
	p := &recordedPath{n, s, netip.AddrPortFrom(local, port), false}
	n.paths = append(n.paths, p)
	return p, nil
}

func (n *recorder) drain(handle func(*received)) {
	for _, r := range n.late {
		handle(&r)
	}
	n.late = nil
}

func (n *recorder) close() {}

func (p *recordedPath) send(b []byte) error {
	parsed, why := parse(b)
	if why != "" {
		panic(why)
	}
	p.sent = append(p.sent, parsed)
	return p.err
}

func (p *recordedPath) source() netip.AddrPort { return p.local }
func (p *recordedPath) close()                 { p.closed = true }

// bench is a Speaker that is not run: each packet that it is handed is processed at once.
type bench struct {
	*Speaker
	t    *testing.T
	net  *recorder
	news []Status
}

func newBench(t *testing.T, sessions ...Session) *bench {
	b := &bench{t: t, net: &recorder{}}
	b.Speaker = New(Config{Log: logTo(t), Changed: func(s Status) { b.news = append(b.news, s) }})
	b.network = b.net
	b.Sync(sessions)
	b.work(nil)
	return b
}

func logTo(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// at returns a bench whose only session is in this state; with a discriminator of 7 at the peer, unless it has not been heard.
func at(t *testing.T, state State) *bench {
	b := newBench(t, Session{Peer: router})
	yours := b.status().Discriminator
	for _, p := range map[State][]packet{
		Down: {},
		Init: {{state: Down}},
		Up:   {{state: Down}, {state: Init, yours: yours}},
	}[state] {
		p.multiplier, p.mine, p.desiredTx, p.requiredRx = 3, 7, time.Second, time.Second
		b.handle(p)
	}
	if state == AdminDown {
		b.handle(packet{state: Down, multiplier: 3, mine: 7, desiredTx: time.Second, requiredRx: time.Second})
		b.Sync(nil)
		b.work(nil)
	}
	if got := b.session().state; got != state {
		t.Fatalf("the session is %s instead of %s", got, state)
	}
	b.net.sent = nil
	return b
}

func (b *bench) handle(p packet) { b.bytes(p.append(nil)) }

func (b *bench) bytes(payload []byte) {
	r := arrived(endpoint{}, router, own, 255, payload)
	b.work(&r)
}

func (b *bench) status() Status { return b.Statuses()[0] }

func (b *bench) session() *session {
	for _, x := range b.sessions {
		return x
	}
	b.t.Fatal("there is no session")
	return nil
}

// standstill runs a subtest in which no time passes.
func standstill(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// TestDiscarded has the steps of RFC 5880, section 6.8.6, that discard a packet.
func TestDiscarded(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b []byte, mine uint32) []byte
		want   drop
	}{
		{"If the version number is not correct (1)", func(b []byte, _ uint32) []byte { b[0] = 2<<5 | b[0]&0x1f; return b }, dropVersion},
		{"... nor is version 0", func(b []byte, _ uint32) []byte { b[0] &= 0x1f; return b }, dropVersion},
		{"If the Length field is less than the minimum correct value (24 if the A bit is clear)", func(b []byte, _ uint32) []byte { b[3] = 23; return b }, dropLength},
		{"... (26 if the A bit is set)", func(b []byte, _ uint32) []byte { b[1] |= flagAuthentication; b[3] = 25; return append(b, 1, 2) }, dropLength},
		{"If the Length field is greater than the payload of the encapsulating protocol", func(b []byte, _ uint32) []byte { b[3] = 25; return b }, dropLength},
		{"... or the payload is shorter than any packet", func(b []byte, _ uint32) []byte { return b[:23] }, dropLength},
		{"... or empty", func([]byte, uint32) []byte { return nil }, dropLength},
		{"If the Detect Mult field is zero", func(b []byte, _ uint32) []byte { b[2] = 0; return b }, dropMultiplier},
		{"If the Multipoint (M) bit is nonzero", func(b []byte, _ uint32) []byte { b[1] |= flagMultipoint; return b }, dropMultipoint},
		{"If the My Discriminator field is zero", func(b []byte, _ uint32) []byte { clear(b[4:8]); return b }, dropDiscriminator},
		{"If the Your Discriminator field is nonzero, and no session is found", func(b []byte, mine uint32) []byte { b[11] ^= 1; return b }, dropDiscriminator},
		{"If the Your Discriminator field is zero and the State field is not Down or AdminDown: Init", func(b []byte, _ uint32) []byte {
			clear(b[8:12])
			b[1] = b[1]&0x3f | byte(Init)<<6
			return b
		}, dropState},
		{"... Up", func(b []byte, _ uint32) []byte { clear(b[8:12]); return b }, dropState},
		{"If the A bit is set and no authentication is in use", func(b []byte, _ uint32) []byte {
			b[1] |= flagAuthentication
			b[3] = 26
			return append(b, 1, 2)
		}, dropAuthentication},
	} {
		standstill(t, c.name, func(t *testing.T) {
			b := at(t, Up)
			before := *b.session().machine
			p := packet{state: Up, poll: true, multiplier: 9, mine: 8, yours: before.discriminator, desiredTx: 1, requiredRx: 1}
			payload := c.change(p.append(nil), before.discriminator)
			r := arrived(endpoint{}, router, own, 255, payload)
			if _, got := b.find(&r); got != c.want {
				t.Errorf("dropped for %q instead of %q", got, c.want)
			}
			in := b.session().in
			b.bytes(payload)
			after := *b.session().machine
			before.random, after.random = nil, nil
			if b.session().in != in || after.remote != before.remote || after.state != before.state || after.heard != before.heard || len(b.net.sent) != 0 {
				t.Errorf("it was processed: %+v became %+v, and %v was sent", before, after, b.net.sent)
			}
		})
	}
}

// TestFound has the steps of section 6.8.6 by which a packet finds its session, and who is a stranger.
func TestFound(t *testing.T) {
	other := netip.MustParseAddr("192.0.2.2")
	second := netip.MustParseAddr("192.0.2.12")
	far := netip.MustParseAddr("198.51.100.2")
	link := netip.MustParseAddr("fe80::1")
	sessions := []Session{
		{Peer: router}, {Peer: router, Local: second}, {Peer: router, Multihop: true, MinimumTTL: 250}, {Peer: router, Device: "eth1"},
		{Peer: link.WithZone("eth0")}, {Peer: link.WithZone("eth1")}, {Peer: far, Multihop: true},
	}
	one, many, eth0, eth1 := endpoint{}, endpoint{multihop: true}, endpoint{v6: true, device: "eth0"}, endpoint{v6: true, device: "eth1"}
	for _, c := range []struct {
		name        string
		at          endpoint
		peer, local netip.Addr
		ttl         uint8
		yours       int // 0, or the number of a session whose discriminator it is, plus one
		want        int // number of the session; -1 for none
		why         drop
	}{
		{"by addresses, if Your Discriminator is zero", one, router, own, 255, 0, 0, ""},
		{"by addresses, to the one that has this local address", one, router, second, 255, 0, 1, ""},
		{"by addresses, over many hops", many, router, own, 250, 0, 2, ""},
		{"by addresses, on the device that it is bound to", endpoint{device: "eth1"}, router, own, 255, 0, 3, ""},
		{"by addresses, on a device that is bound to for another session", endpoint{device: "eth2"}, router, own, 255, 0, 0, ""},
		{"by addresses, with a local address, on a device that is bound to for another session", endpoint{device: "eth2"}, router, second, 255, 0, 1, ""},
		{"by its zone, which is a device", eth0, link, own, 255, 0, 4, ""},
		{"by its zone, which is another device", eth1, link, own, 255, 0, 5, ""},
		{"by Your Discriminator, whatever the addresses would say", one, router, own, 255, 1, 0, ""},
		{"by Your Discriminator, at the local address", one, router, second, 255, 2, 1, ""},
		{"by Your Discriminator, over many hops", many, far, own, 1, 7, 6, ""},

		{"nobody knows the source", one, other, own, 255, 0, -1, dropStranger},
		{"the source is known over many hops only", one, far, own, 255, 0, -1, dropStranger},
		{"the source is known on another device only", eth0, netip.MustParseAddr("fe80::2"), own, 255, 0, -1, dropStranger},
		{"Your Discriminator is another session's: source", one, other, own, 255, 1, -1, dropStranger},
		{"Your Discriminator is another session's: local address", one, router, own, 255, 2, -1, dropStranger},
		{"Your Discriminator is another session's: port", many, router, own, 255, 1, -1, dropStranger},
		{"Your Discriminator is another session's: device", eth1, link, own, 255, 5, -1, dropStranger},
		{"a TTL of 254", one, router, own, 254, 0, 0, dropTTL},
		{"a TTL of 254, from a stranger", one, other, own, 254, 0, -1, dropTTL},
		{"a TTL of 249 over many hops, where 250 is the least", many, router, own, 249, 0, 2, dropTTL},
		{"a TTL of 249 over many hops, by Your Discriminator", many, router, own, 249, 3, 2, dropTTL},
	} {
		standstill(t, c.name, func(t *testing.T) {
			b := newBench(t, sessions...)
			p := packet{state: Down, multiplier: 3, mine: 7}
			if c.yours > 0 {
				p.state, p.yours = Init, b.sessions[sessions[c.yours-1].key()].discriminator
			}
			r := arrived(c.at, c.peer, c.local, c.ttl, p.append(nil))
			x, why := b.find(&r)
			got := -1
			if x != nil {
				got = slices.IndexFunc(sessions, func(s Session) bool { return s.key() == x.key })
			}
			if got != c.want || why != c.why {
				t.Errorf("it is for session %d, dropped for %q; and not for %d, %q", got, why, c.want, c.why)
			}
		})
	}
}

// TestTaken has the steps of section 6.8.6 that a packet goes through which is not discarded.
func TestTaken(t *testing.T) {
	const first = 100 * time.Millisecond
	remembers := func(check func(m *machine) bool) func(*testing.T, *bench) {
		return func(t *testing.T, b *bench) {
			if m := b.session().machine; !check(m) {
				t.Errorf("it became %+v, %+v", m.remote, m)
			}
		}
	}
	becomes := func(state State, why Diagnostic) func(*testing.T, *bench) {
		return func(t *testing.T, b *bench) {
			if x := b.session(); x.state != state || x.diagnostic != why {
				t.Errorf("the session is %s (%s) and not %s (%s)", x.state, x.diagnostic, state, why)
			}
		}
	}
	for _, c := range []struct {
		name  string
		from  State
		p     packet
		check func(*testing.T, *bench)
	}{
		{"Set bfd.RemoteDiscr to the value of My Discriminator", Up, packet{state: Up, mine: 99}, remembers(func(m *machine) bool { return m.remote.discriminator == 99 })},
		{"Set bfd.RemoteState to the value of the State field", Init, packet{state: Up}, remembers(func(m *machine) bool { return m.remote.state == Up })},
		{"Set bfd.RemoteDemandMode to the value of the Demand (D) bit", Up, packet{state: Up, demand: true}, remembers(func(m *machine) bool { return m.remote.demand })},
		{"Set bfd.RemoteMinRxInterval to the value of Required Min RX Interval", Up, packet{state: Up, requiredRx: 5 * time.Second}, remembers(func(m *machine) bool { return m.remote.requiredRx == 5*time.Second })},
		{"If the Required Min Echo RX Interval field is zero, the transmission of Echo packets, if any, MUST cease", Up, packet{state: Up}, becomes(Up, NoDiagnostic)},
		{"If a Poll Sequence is being transmitted by the local system and the Final (F) bit is set, it MUST be terminated", Up, packet{state: Up, final: true}, remembers(func(m *machine) bool { return !m.polling })},
		{"... and if the Final bit is clear it goes on", Up, packet{state: Up}, remembers(func(m *machine) bool { return m.polling })},
		{"Update the transmit interval", Up, packet{state: Up, requiredRx: 5 * time.Second}, remembers(func(m *machine) bool { return m.interval() == 5*time.Second })},
		{"Update the Detection Time", Up, packet{state: Up, desiredTx: 5 * time.Second, multiplier: 7}, remembers(func(m *machine) bool { return m.detectionTime() == 35*time.Second })},
		{"... of which our Required Min RX Interval is the least", Up, packet{state: Up, desiredTx: first, multiplier: 7}, remembers(func(m *machine) bool { return m.detectionTime() == 7*DefaultInterval })},

		{"If bfd.SessionState is AdminDown, discard the packet: Down", AdminDown, packet{state: Down, poll: true}, becomes(AdminDown, AdministrativelyDown)},
		{"... Init", AdminDown, packet{state: Init, poll: true}, becomes(AdminDown, AdministrativelyDown)},
		{"... Up", AdminDown, packet{state: Up, poll: true}, becomes(AdminDown, AdministrativelyDown)},
		{"... AdminDown", AdminDown, packet{state: AdminDown, poll: true}, becomes(AdminDown, AdministrativelyDown)},

		{"If received state is AdminDown: If bfd.SessionState is not Down: Init", Init, packet{state: AdminDown}, becomes(Down, NeighborSignaledDown)},
		{"... Up", Up, packet{state: AdminDown}, becomes(Down, NeighborSignaledDown)},
		{"... and if it is Down, nothing changes", Down, packet{state: AdminDown}, becomes(Down, NoDiagnostic)},
		{"If bfd.SessionState is Down: If received State is Down: Set bfd.SessionState to Init", Down, packet{state: Down}, becomes(Init, NoDiagnostic)},
		{"... Else if received State is Init: Set bfd.SessionState to Up", Down, packet{state: Init}, becomes(Up, NoDiagnostic)},
		{"... and Up changes nothing: the peer has to notice first", Down, packet{state: Up}, becomes(Down, NoDiagnostic)},
		{"Else if bfd.SessionState is Init: If received State is Init: Set bfd.SessionState to Up", Init, packet{state: Init}, becomes(Up, NoDiagnostic)},
		{"... or Up", Init, packet{state: Up}, becomes(Up, NoDiagnostic)},
		{"... and Down changes nothing", Init, packet{state: Down}, becomes(Init, NoDiagnostic)},
		{"Else (bfd.SessionState is Up): If received State is Down: Set bfd.LocalDiag to 3, bfd.SessionState to Down", Up, packet{state: Down}, becomes(Down, NeighborSignaledDown)},
		{"... and Init changes nothing", Up, packet{state: Init}, becomes(Up, NoDiagnostic)},
		{"... nor does Up", Up, packet{state: Up}, becomes(Up, NoDiagnostic)},

		{"If bfd.RemoteDemandMode is 1, and both are Up: the local system MUST cease the periodic transmission", Up, packet{state: Up, demand: true, final: true}, remembers(func(m *machine) bool { return !m.periodic() })},
		{"... but not while it transmits a Poll Sequence", Up, packet{state: Up, demand: true}, remembers(func(m *machine) bool { return m.periodic() })},
		{"If bfd.RemoteDemandMode is 0, or one is not Up: the local system MUST send periodic packets", Up, packet{state: Up, final: true}, remembers(func(m *machine) bool { return m.periodic() })},
		{"... the local one", Init, packet{state: Down, demand: true, final: true}, remembers(func(m *machine) bool { return m.periodic() })},
		{"... the remote one", Up, packet{state: Init, demand: true, final: true}, remembers(func(m *machine) bool { return m.periodic() })},
		{"If the Poll (P) bit is set, send a packet with the Poll bit clear and the Final bit set, at once", Up, packet{state: Up, poll: true}, func(t *testing.T, b *bench) {
			if len(b.net.sent) != 1 || !b.net.sent[0].final || b.net.sent[0].poll || b.net.sent[0].yours != 7 {
				t.Errorf("%+v was sent", b.net.sent)
			}
		}},
		{"... in other states, too", Init, packet{state: Down, poll: true}, func(t *testing.T, b *bench) {
			if len(b.net.sent) != 1 || !b.net.sent[0].final || b.net.sent[0].poll {
				t.Errorf("%+v was sent", b.net.sent)
			}
		}},
		{"... but not if the packet was discarded", AdminDown, packet{state: Up, poll: true}, func(t *testing.T, b *bench) {
			if len(b.net.sent) != 0 {
				t.Errorf("%+v was sent", b.net.sent)
			}
		}},
		{"If the packet was not discarded, it has been received for the Detection Time", Up, packet{state: Up}, remembers(func(m *machine) bool { return time.Since(m.heard) < time.Minute && m.wake().After(m.heard) })},
	} {
		standstill(t, c.name, func(t *testing.T) {
			b := at(t, c.from)
			b.session().heard = time.Time{}
			p := c.p
			p.multiplier = max(p.multiplier, 3)
			p.requiredRx, p.desiredTx = max(p.requiredRx, first), max(p.desiredTx, first)
			if p.mine == 0 {
				p.mine = 7
			}
			if c.from != Down || p.state > Down {
				p.yours = b.session().discriminator
			}
			b.handle(p)
			c.check(t, b)
		})
	}
}
