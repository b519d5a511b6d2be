package bfd

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPoll has the rules of RFC 5880, section 6.8.3.
func TestPoll(t *testing.T) {
	config := Session{Transmit: 200 * ms, Receive: 200 * ms, Multiplier: 3}
	change := func(c *clocked, transmit, receive time.Duration) []packet {
		config := c.config
		config.Transmit, config.Receive = transmit, receive
		c.configure(c.now, config)
		return c.sends()
	}
	told := func(t *testing.T, sent []packet, transmit, receive time.Duration) {
		t.Helper()
		if len(sent) != 1 || !sent[0].poll || sent[0].final || sent[0].desiredTx != transmit || sent[0].requiredRx != receive {
			t.Errorf("the peer is told %+v", sent)
		}
	}
	slow := packet{state: Up, desiredTx: 100 * ms, requiredRx: 100 * ms, multiplier: 250}
	final := slow
	final.final = true
	t.Run("a longer transmit interval is used when the peer knows it", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		told(t, change(c, 400*ms, 200*ms), 400*ms, 200*ms)
		if n := len(c.pass(2 * time.Second)); n != 10 {
			t.Errorf("%d packets in 2 s before it does", n)
		}
		c.hears(final)
		if n := len(c.pass(2 * time.Second)); n != 5 {
			t.Errorf("%d packets in 2 s after it does", n)
		}
	})
	t.Run("a shorter one at once, as the peer expects it from the first packet on", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		told(t, change(c, 100*ms, 200*ms), 100*ms, 200*ms)
		if n := len(c.pass(2 * time.Second)); n != 20 {
			t.Errorf("%d packets in 2 s", n)
		}
	})
	t.Run("a shorter receive interval when the peer knows it", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		told(t, change(c, 200*ms, 150*ms), 200*ms, 150*ms)
		if d := c.receiveInterval(); d != 200*ms {
			t.Errorf("a packet is expected every %v before it does", d)
		}
		c.hears(final)
		if d := c.receiveInterval(); d != 150*ms {
			t.Errorf("a packet is expected every %v after it does", d)
		}
	})
	t.Run("a longer one at once", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		told(t, change(c, 200*ms, 500*ms), 200*ms, 500*ms)
		if d := c.receiveInterval(); d != 500*ms {
			t.Errorf("a packet is expected every %v", d)
		}
	})
	t.Run("each packet has the Poll bit until the answer comes", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		change(c, 100*ms, 100*ms)
		for _, p := range c.pass(time.Second) {
			if !p.poll {
				t.Errorf("it sends %+v", p)
			}
		}
		c.hears(final)
		for _, p := range c.pass(time.Second) {
			if p.poll {
				t.Errorf("after the answer it sends %+v", p)
			}
		}
	})
	t.Run("a second change waits for the answer to the first, and a packet between them", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		change(c, 100*ms, 100*ms)
		if sent := change(c, 50*ms, 60*ms); len(sent) != 0 {
			t.Errorf("it sends %+v at once", sent)
		}
		if p := c.pass(100 * ms); len(p) != 1 || p[0].desiredTx != 100*ms {
			t.Errorf("it sends %+v while it waits", p)
		}
		sent := c.hears(final)
		if len(sent) != 2 || sent[0].poll || sent[0].desiredTx != 100*ms {
			t.Fatalf("after the answer it sends %+v", sent)
		}
		told(t, sent[1:], 50*ms, 60*ms)
		c.hears(final)
		if c.polling || c.tx != 50*ms || c.rx != 60*ms {
			t.Errorf("in the end it is %+v", c.machine)
		}
	})
	t.Run("both sides at once: an answer is no Poll", func(t *testing.T) {
		c := newUp(t, config)
		c.hears(slow)
		change(c, 100*ms, 100*ms)
		poll := slow
		poll.poll = true
		if sent := c.hears(poll); len(sent) != 1 || !sent[0].final || sent[0].poll || sent[0].desiredTx != 100*ms || !c.polling {
			t.Errorf("it answers %+v", sent)
		}
	})
	t.Run("another multiplier needs none", func(t *testing.T) {
		c := newUp(t, config)
		config := c.config
		config.Multiplier = 9
		c.configure(c.now, config)
		if sent := c.sends(); len(sent) != 1 || sent[0].poll || sent[0].multiplier != 9 {
			t.Errorf("it sends %+v", sent)
		}
	})
	t.Run("a session that fails meanwhile starts afresh", func(t *testing.T) {
		c := newUp(t, config)
		change(c, 100*ms, 100*ms)
		c.pass(time.Minute)
		if c.state != Down || c.polling || c.pause || c.tx != time.Second || c.rx != 100*ms {
			t.Errorf("it is %+v", c.machine)
		}
	})
}

// TestChangesLoseNothing changes the timers of both sides at random: as long as no packet is lost, neither may ever take the other for gone.
func TestChangesLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		intervals := rapid.SampledFrom([]time.Duration{10 * ms, 50 * ms, 300 * ms, time.Second, 5 * time.Second})
		// A single packet that makes up the detection time must not have been under way for longer than what jitter leaves.
		const delay = ms
		session := rapid.Custom(func(t *rapid.T) Session {
			return Session{
				Transmit: intervals.Draw(t, "transmit"), Receive: intervals.Draw(t, "receive"),
				Multiplier: rapid.SampledFrom([]uint8{1, 2, 3, 20}).Draw(t, "multiplier"), Passive: false,
			}
		})
		random := rapid.Float64Range(0, 0.999999)
		now := time.Unix(1e9, 0)
		type flight struct {
			at time.Time
			to int
			p  packet
		}
		var sides [2]*machine
		var wire []flight
		for i := range sides {
			sides[i] = newMachine(now, session.Draw(t, fmt.Sprint("side ", i)).complete(), uint32(i+1))
			n := 0
			draws := rapid.SliceOfN(random, 8, 8).Draw(t, "jitter")
			sides[i].random = func() float64 { n++; return draws[n%len(draws)] }
		}
		emit := func(i int) {
			for p, ok := sides[i].next(now); ok; p, ok = sides[i].next(now) {
				wire = append(wire, flight{now.Add(delay), 1 - i, p})
			}
		}
		run := func(d time.Duration) {
			end := now.Add(d)
			for {
				at := end
				for i := range sides {
					if w := sides[i].wake(); !w.IsZero() && w.Before(at) {
						at = w
					}
				}
				deliver := len(wire) > 0 && !wire[0].at.After(at)
				if deliver {
					at = wire[0].at
				}
				if at.After(now) {
					now = at
				}
				if deliver {
					f := wire[0]
					wire = wire[1:]
					sides[f.to].recv(now, &f.p)
					emit(f.to)
				} else if at.Equal(end) {
					return
				}
				for i := range sides {
					sides[i].expire(now)
					emit(i)
				}
			}
		}
		emit(0)
		emit(1)
		run(20 * time.Second)
		for i := range sides {
			if sides[i].state != Up {
				t.Fatalf("side %d did not come up: %+v", i, sides[i])
			}
		}
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			i := rapid.IntRange(0, 1).Draw(t, "who")
			sides[i].configure(now, session.Draw(t, "to").complete())
			emit(i)
			run(rapid.SampledFrom([]time.Duration{0, ms, 2 * ms, 30 * ms, time.Second, 20 * time.Second}).Draw(t, "wait"))
		}
		run(30 * time.Second)
		for i, m := range sides {
			if m.downs > 0 {
				t.Fatalf("side %d lost the other: %+v", i, m)
			}
			if m.polling || m.tx != m.config.Transmit || m.rx != m.config.Receive {
				t.Fatalf("side %d does not use its configuration: %+v", i, m)
			}
		}
	})
}
