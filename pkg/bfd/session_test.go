package bfd

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// clocked is a machine, and a time that stands still unless it is moved.
type clocked struct {
	*machine
	t   *testing.T
	now time.Time
}

func newClocked(t *testing.T, config Session) *clocked {
	now := time.Unix(1e9, 0)
	c := &clocked{newMachine(now, config.complete(), 1), t, now}
	c.random = func() float64 { return 0.999999 } // hardly any jitter, so that times can be read
	return c
}

// sends returns what is sent now.
func (c *clocked) sends() (all []packet) {
	for p, ok := c.next(c.now); ok; p, ok = c.next(c.now) {
		all = append(all, p)
	}
	return all
}

// pass lets time pass, and returns what is sent meanwhile.
func (c *clocked) pass(d time.Duration) (all []packet) {
	end := c.now.Add(d)
	for at := c.wake(); !at.IsZero() && !at.After(end); at = c.wake() {
		if at.After(c.now) {
			c.now = at
		}
		c.expire(c.now)
		all = append(all, c.sends()...)
	}
	c.now = end
	return all
}

// hears processes a packet of a peer with the discriminator 2, multiplier 3, and intervals of 300 ms, unless it has others.
func (c *clocked) hears(p packet) []packet {
	p.mine = 2
	if p.multiplier == 0 {
		p.multiplier = 3
	}
	if p.desiredTx == 0 {
		p.desiredTx = 300 * ms
	}
	if p.requiredRx == 0 {
		p.requiredRx = 300 * ms
	} else if p.requiredRx < 0 {
		p.requiredRx = 0
	}
	c.recv(c.now, &p)
	return c.sends()
}

// newUp returns a machine that is up, whose peer has confirmed its timers.
func newUp(t *testing.T, config Session) *clocked {
	c := newClocked(t, config)
	c.sends()
	c.hears(packet{state: Down})
	c.hears(packet{state: Up, multiplier: 250})
	c.hears(packet{state: Up, multiplier: 250, final: true})
	c.pass(c.interval()) // a packet without Poll
	c.hears(packet{state: Up})
	if c.state != Up || c.polling || c.pause {
		t.Fatalf("the session did not come up: %+v", c.machine)
	}
	return c
}

func about(got, want time.Duration) bool { return got <= want && got > want-want/100 }

func TestComingUp(t *testing.T) {
	c := newClocked(t, Session{Transmit: 100 * ms, Receive: 50 * ms, Multiplier: 5})
	sent := c.sends()
	if len(sent) != 1 || sent[0] != (packet{state: Down, multiplier: 5, mine: 1, desiredTx: time.Second, requiredRx: 50 * ms}) {
		t.Errorf("first of all it sends %+v", sent)
	}
	if n := len(c.pass(10 * time.Second)); n != 10 {
		t.Errorf("it sends %d packets in 10 s as long as the peer is silent", n)
	}
	if sent := c.hears(packet{state: Down}); len(sent) != 1 || sent[0].state != Init || sent[0].yours != 2 {
		t.Errorf("to the peer's first packet it answers %+v", sent)
	}
	if sent := c.hears(packet{state: Init}); len(sent) != 1 || sent[0].state != Up || !sent[0].poll || sent[0].desiredTx != 100*ms {
		t.Errorf("when up it sends %+v", sent)
	}
	if c.ups != 1 || c.failed {
		t.Errorf("it came up %d times, failed: %v", c.ups, c.failed)
	}
}

func TestSlowUnlessUp(t *testing.T) {
	for _, c := range []struct{ transmit, want time.Duration }{{10 * ms, time.Second}, {time.Second, time.Second}, {3 * time.Second, 3 * time.Second}} {
		m := newUp(t, Session{Transmit: c.transmit})
		if sent := m.hears(packet{state: Down}); len(sent) == 0 || sent[0].desiredTx != c.want || m.interval() != c.want {
			t.Errorf("transmit interval %v: when down it sends %+v every %v", c.transmit, sent, m.interval())
		}
	}
}

func TestJitter(t *testing.T) {
	for _, c := range []struct {
		multiplier  uint8
		least, most float64
	}{{1, 0.75, 0.90}, {2, 0.75, 1}, {3, 0.75, 1}, {255, 0.75, 1}} {
		m := newClocked(t, Session{Multiplier: c.multiplier})
		for _, r := range []float64{0, 0.25, 0.5, 0.999999999} {
			m.random = func() float64 { return r }
			want := c.least + r*(c.most-c.least)
			if got := m.jitter(time.Second).Seconds(); got < want-0.001 || got > want+0.001 || got > c.most || got < c.least {
				t.Errorf("multiplier %d: %v of an interval", c.multiplier, got)
			}
		}
	}
}

func TestPeersInterval(t *testing.T) {
	c := newUp(t, Session{Transmit: 100 * ms})
	count := func(requiredRx time.Duration) int {
		c.hears(packet{state: Up, requiredRx: requiredRx, desiredTx: time.Minute})
		return len(c.pass(6 * time.Second))
	}
	if n := count(50 * ms); n != 60 {
		t.Errorf("to a peer that can receive more than we send: %d packets in 6 s", n)
	}
	if n := count(2 * time.Second); n != 3 {
		t.Errorf("to a peer that wants one packet in 2 s: %d in 6 s", n)
	}
	if n := count(-1); n != 0 {
		t.Errorf("to a peer that wants none: %d packets in 6 s", n)
	}
	if sent := c.hears(packet{state: Up, poll: true, requiredRx: -1, desiredTx: time.Minute}); len(sent) != 1 || !sent[0].final {
		t.Errorf("its Poll is answered by %+v", sent)
	}
	if sent := c.hears(packet{state: Up, requiredRx: 500 * ms, desiredTx: time.Minute}); len(sent) != 1 {
		t.Errorf("when it wants packets again, %d are sent at once", len(sent))
	}
	c.pass(100 * ms)
	if c.hears(packet{state: Up, requiredRx: 200 * ms, desiredTx: time.Minute}); !about(c.nextTx.Sub(c.sent), 200*ms) {
		t.Errorf("when it wants them sooner, the next comes %v after the last", c.nextTx.Sub(c.sent))
	}
}

func TestDetection(t *testing.T) {
	for _, c := range []struct {
		name       string
		config     Session
		peer       packet
		want       time.Duration
		diagnostic Diagnostic
	}{
		{"the peer sends more slowly than it could", Session{Receive: 50 * ms}, packet{desiredTx: 200 * ms, multiplier: 4}, 800 * ms, DetectionTimeExpired},
		{"we receive more slowly than it could send", Session{Receive: 400 * ms}, packet{desiredTx: 200 * ms, multiplier: 4}, 1600 * ms, DetectionTimeExpired},
		{"our own multiplier is of no interest", Session{Receive: 100 * ms, Multiplier: 50}, packet{desiredTx: 100 * ms, multiplier: 1}, 100 * ms, DetectionTimeExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newUp(t, c.config)
			c.peer.state = Up
			m.hears(c.peer)
			if m.pass(c.want - 1); m.state != Up {
				t.Fatalf("it is down in less than %v", c.want)
			}
			sent := m.pass(1)
			if m.state != Down || m.diagnostic != c.diagnostic || !m.failed || m.downs != 1 || m.remote.discriminator != 0 {
				t.Errorf("after %v: %+v", c.want, m.machine)
			}
			if len(sent) != 1 || sent[0].state != Down || sent[0].diagnostic != c.diagnostic || sent[0].yours != 0 {
				t.Errorf("the peer is told %+v", sent)
			}
		})
	}
	t.Run("in Init", func(t *testing.T) {
		m := newClocked(t, Session{})
		m.hears(packet{state: Down, desiredTx: time.Second})
		if m.pass(3 * time.Second); m.state != Down || m.diagnostic != DetectionTimeExpired || m.failed || m.downs != 0 {
			t.Errorf("it is %+v", m.machine)
		}
	})
}

func TestAdminDownOfThePeer(t *testing.T) {
	c := newUp(t, Session{})
	c.hears(packet{state: AdminDown, diagnostic: AdministrativelyDown})
	if c.state != Down || c.failed || c.downs != 1 || c.remote.state != AdminDown {
		t.Errorf("it is %+v", c.machine)
	}
	if c.pass(time.Minute); c.failed || c.remote.state != AdminDown || c.remote.discriminator != 0 {
		t.Errorf("when it has fallen silent it is %+v", c.machine)
	}
	if c.hears(packet{state: Down}); c.state != Init {
		t.Errorf("when it comes back it is %+v", c.machine)
	}

	c = newUp(t, Session{})
	c.pass(time.Minute)
	if c.hears(packet{state: AdminDown}); c.failed {
		t.Error("a peer that tells that it went on purpose still counts as failed")
	}
}

func TestAdminDownOfOurs(t *testing.T) {
	c := newUp(t, Session{})
	c.leave(c.now)
	sent := append(c.sends(), c.pass(time.Second)...)
	if len(sent) != farewells || !c.gone() || c.failed {
		t.Errorf("%d packets are sent, and then it is %+v", len(sent), c.machine)
	}
	for _, p := range sent {
		if p.state != AdminDown || p.diagnostic != AdministrativelyDown || p.desiredTx < slowInterval || p.yours != 2 || p.poll {
			t.Errorf("it sends %+v", p)
		}
	}

	c = newUp(t, Session{})
	c.leave(c.now)
	c.sends()
	c.configure(c.now, c.config)
	if sent := c.sends(); c.state != Down || len(sent) != 1 || sent[0].state != Down {
		t.Errorf("when it is wanted again it sends %+v", sent)
	}

	c = newClocked(t, Session{Passive: true})
	if c.leave(c.now); !c.gone() {
		t.Error("a session that has sent nothing has nobody to tell of its end")
	}
}

func TestPassive(t *testing.T) {
	c := newClocked(t, Session{Passive: true})
	if sent := c.pass(time.Minute); len(sent) != 0 {
		t.Errorf("it sends %+v before it has heard the peer", sent)
	}
	if sent := c.hears(packet{state: Down}); len(sent) != 1 || sent[0].state != Init {
		t.Errorf("it answers with %+v", sent)
	}
	c.hears(packet{state: Up})
	if sent := c.pass(time.Minute); c.state != Down || len(sent) == 0 || sent[len(sent)-1].state == Down && len(sent) > 10 {
		t.Errorf("it sends %d packets to a peer that has gone", len(sent))
	}
	if sent := c.pass(time.Minute); len(sent) != 0 {
		t.Errorf("it sends %d more", len(sent))
	}
}

func TestRestartOfThePeer(t *testing.T) {
	c := newUp(t, Session{})
	p := packet{state: Down, mine: 33, multiplier: 3, desiredTx: time.Second, requiredRx: 300 * ms}
	c.recv(c.now, &p)
	if sent := c.sends(); c.state != Down || c.diagnostic != NeighborSignaledDown || !c.failed || len(sent) != 1 || sent[0].yours != 33 {
		t.Errorf("it is %+v, and sends %+v", c.machine, sent)
	}
	c.recv(c.now, &p)
	if sent := c.sends(); c.state != Init || len(sent) != 1 || sent[0].state != Init {
		t.Errorf("then it sends %+v", sent)
	}
}
