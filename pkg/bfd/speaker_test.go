package bfd

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// pair runs two Speakers that have a session with each other, until the test ends.
func pair(t *testing.T, config Session) (l *fakeLAN, a, b *fakeHost) {
	l = &fakeLAN{}
	a, b = l.host(t, own), l.host(t, router)
	for _, h := range []*fakeHost{a, b} {
		s := config
		s.Peer = router
		if h == b {
			s.Peer = own
		}
		h.Sync([]Session{s})
		t.Cleanup(h.start())
	}
	return l, a, b
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestUpDownUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t, Session{Transmit: 100 * ms, Receive: 100 * ms, Multiplier: 3})
		wait(3 * time.Second)
		for _, h := range []*fakeHost{a, b} {
			s := h.Statuses()[0]
			if s.State != Up || s.RemoteState != Up || s.TransmitInterval != 100*ms || s.ReceiveInterval != 100*ms || s.DetectionTime != 300*ms ||
				s.Failed || s.LastError != "" || s.Ups != 1 || s.Downs != 0 || s.Source != h.addr {
				t.Errorf("%+v", s)
			}
			if s.PacketsIn < 20 || s.PacketsOut < 20 || s.PacketsOut > 60 {
				t.Errorf("%d packets in, %d out", s.PacketsIn, s.PacketsOut)
			}
		}
		began := time.Now()
		l.set(func() { l.cut = true })
		wait(time.Second)
		s := a.Statuses()[0]
		if d := s.Since.Sub(began); s.State != Down || !s.Failed || s.Diagnostic != DetectionTimeExpired || d < 200*ms || d > 302*ms {
			t.Errorf("after %v: %+v", d, s)
		}
		if news := a.news[len(a.news)-1]; !news.Failed || news.State != Down {
			t.Errorf("the news are %+v", news)
		}
		l.set(func() { l.cut = false })
		wait(3 * time.Second)
		if s := a.Statuses()[0]; s.State != Up || s.Failed || s.Ups != 2 || s.Downs != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestPeerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLAN{}
		a, b := l.host(t, own), l.host(t, router)
		a.Sync([]Session{{Peer: router}})
		b.Sync([]Session{{Peer: own}})
		t.Cleanup(a.start())
		stop := b.start()
		wait(3 * time.Second)
		began := time.Now()
		stop()
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %v to stop", d)
		}
		if n := len(b.Statuses()); n != 0 {
			t.Errorf("a Speaker that has stopped has %d sessions", n)
		}
		wait(time.Minute)
		if s := a.Statuses()[0]; s.State != Down || s.Failed || s.RemoteState != AdminDown || s.RemoteDiagnostic != AdministrativelyDown {
			t.Errorf("%+v", s)
		}
		for _, s := range a.news {
			if s.Failed {
				t.Errorf("it was told that %+v", s)
			}
		}
	})
}

func TestSessionNoLongerWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, Session{})
		wait(3 * time.Second)
		b.Sync(nil)
		wait(time.Second)
		if s := a.Statuses()[0]; s.Failed || s.RemoteState != AdminDown || s.State != Down || len(b.sessions) != 0 {
			t.Errorf("%+v, %d sessions", s, len(b.sessions))
		}
		b.Sync([]Session{{Peer: own}})
		wait(3 * time.Second)
		b.Sync(nil)
		b.Sync([]Session{{Peer: own}})
		wait(3 * time.Second)
		if s := a.Statuses()[0]; s.Failed || s.State != Up || s.Ups != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSyncChangesTimersOfALiveSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, Session{})
		wait(3 * time.Second)
		for _, interval := range []time.Duration{50 * ms, 2 * time.Second, 10 * ms, 300 * ms} {
			for _, multiplier := range []uint8{5, 2, 3} {
				before := a.Statuses()[0]
				a.Sync([]Session{{Peer: router, Transmit: interval, Receive: interval, Multiplier: multiplier}})
				a.Sync([]Session{{Peer: router, Transmit: interval, Receive: interval, Multiplier: multiplier}})
				wait(10 * time.Second)
				s, r := a.Statuses()[0], b.Statuses()[0]
				want := max(interval, DefaultInterval)
				if s.State != Up || s.Discriminator != before.Discriminator || s.TransmitInterval != want || r.ReceiveInterval != want || r.DetectionTime != want*time.Duration(multiplier) {
					t.Errorf("%v: %+v, and the peer: %+v", interval, s, r)
				}
			}
		}
		if a.downs()+b.downs() > 0 {
			t.Error("the session did not last")
		}
	})
}

func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t, Session{Transmit: 50 * ms, Receive: 50 * ms, Multiplier: 20})
		l.set(func() { l.loss = 0.3 }) // the odds are 3e10 to 1 for each detection time
		wait(time.Minute)
		if a.count(Up) != 1 || b.count(Up) != 1 || a.downs()+b.downs() > 0 {
			t.Errorf("%+v, %+v", a.Statuses(), b.Statuses())
		}
		l.set(func() { l.loss = 0.9 })
		wait(10 * time.Minute)
		if a.downs()+b.downs() == 0 {
			t.Error("it lasts although only one packet in ten comes through")
		}
		l.set(func() { l.loss = 0 })
		wait(10 * time.Second)
		if a.count(Up) != 1 || b.count(Up) != 1 {
			t.Errorf("%+v, %+v", a.Statuses(), b.Statuses())
		}
	})
}

// TestThousands has two Speakers with 2,000 sessions, each of which still has one goroutine.
func TestThousands(t *testing.T) {
	goroutines := func(t *testing.T, sessions int) (n int) {
		synctest.Test(t, func(t *testing.T) {
			l := &fakeLAN{}
			var addrs []netip.Addr
			var here, there []Session
			for i := range sessions {
				addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
				addrs = append(addrs, addr)
				here = append(here, Session{Peer: addr})
				there = append(there, Session{Peer: own, Local: addr})
			}
			a, b := l.host(t, own), l.host(t, addrs...)
			a.Sync(here)
			b.Sync(there)
			t.Cleanup(a.start())
			t.Cleanup(b.start())
			wait(5 * time.Second)
			n = runtime.NumGoroutine()
			if a.count(Up) != sessions || b.count(Up) != sessions || a.downs()+b.downs() > 0 {
				t.Errorf("%d and %d of %d are up, they went down %d and %d times", a.count(Up), b.count(Up), sessions, a.downs(), b.downs())
			}
			if len(a.byDiscriminator) != sessions || len(a.endpoints) != 1 {
				t.Errorf("%d discriminators, %d endpoints", len(a.byDiscriminator), len(a.endpoints))
			}
			l.set(func() { l.cut = true })
			wait(time.Second)
			if a.count(Down) != sessions {
				t.Errorf("%d of %d are down", a.count(Down), sessions)
			}
			a.Sync(nil)
			wait(time.Second)
			if len(a.sessions)+len(a.byDiscriminator)+len(a.due)+len(a.endpoints)+len(a.ports) != 0 {
				t.Errorf("there remain %d sessions, %d discriminators, %d timers, %d endpoints, %d ports", len(a.sessions), len(a.byDiscriminator), len(a.due), len(a.endpoints), len(a.ports))
			}
		})
		return n
	}
	if few, many := goroutines(t, 2), goroutines(t, 2000); many > few {
		t.Errorf("there are %d goroutines for 2 sessions, and %d for 2000", few, many)
	}
}

// TestWhatWasMissed is a process that was frozen for longer than the detection time, while the peer went on.
func TestWhatWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t, Session{Transmit: 50 * ms, Receive: 50 * ms})
		wait(3 * time.Second)
		l.set(func() { a.late = true })
		wait(10 * time.Second)
		if a.downs() > 0 || a.count(Up) != 1 {
			t.Errorf("%+v", a.Statuses()[0])
		}
		l.set(func() { a.late, l.cut = false, true })
		wait(time.Second)
		if a.downs() != 1 {
			t.Errorf("%+v", a.Statuses()[0])
		}
	})
}

func TestSameAddressOverOneHopAndMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLAN{}
		a, b := l.host(t, own), l.host(t, router)
		a.Sync([]Session{{Peer: router}, {Peer: router, Multihop: true, Transmit: 50 * ms, MinimumTTL: 254}, {Peer: router, Transmit: 10 * ms}})
		b.Sync([]Session{{Peer: own}, {Peer: own, Multihop: true, Receive: 10 * ms}})
		t.Cleanup(a.start())
		t.Cleanup(b.start())
		wait(5 * time.Second)
		s := a.Statuses()
		if len(s) != 2 || s[0].State != Up || s[1].State != Up || s[0].Multihop || !s[1].Multihop || s[0].TransmitInterval != DefaultInterval || s[1].TransmitInterval != 50*ms {
			t.Errorf("%+v", s)
		}
	})
}

func TestErrorsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := pair(t, Session{})
		wait(3 * time.Second)
		for _, err := range []error{unix.ENOBUFS, unix.EPERM, unix.EINVAL} {
			a.mu.Lock()
			a.sending = fmt.Errorf("sending: %w", err)
			a.mu.Unlock()
			wait(400 * ms) // one packet or two of three: the session lasts
			a.mu.Lock()
			a.sending = nil
			a.mu.Unlock()
			if s := a.Statuses()[0]; !strings.Contains(s.LastError, err.Error()) || s.State != Up {
				t.Errorf("%+v", s)
			}
			wait(errorAge + time.Second)
			if s := a.Statuses()[0]; s.LastError != "" || s.State != Up || s.Downs != 0 {
				t.Errorf("long after %v: %+v", err, s)
			}
		}
	})
}

func TestPortIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLAN{}
		a := l.host(t, own)
		a.refused = map[endpoint]error{{}: unix.EADDRINUSE}
		a.Sync([]Session{{Peer: router}, {Peer: router, Multihop: true}})
		t.Cleanup(a.start())
		wait(time.Minute)
		if s := a.Statuses(); s[0].LastError != unix.EADDRINUSE.Error() || s[1].LastError != "" {
			t.Errorf("%+v", s)
		}
		a.mu.Lock()
		a.refused = nil
		a.mu.Unlock()
		wait(2 * tidyInterval)
		if s := a.Statuses(); s[0].LastError != "" {
			t.Errorf("%+v", s)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if n := len(a.news); n > 10 {
			t.Errorf("it was told %d times", n)
		}
	})
}

func TestLocalAddressIsLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := netip.MustParseAddr("192.0.2.12")
		l := &fakeLAN{}
		a, b := l.host(t, own, second), l.host(t, router)
		a.Sync([]Session{{Peer: router}})
		b.Sync([]Session{{Peer: second}})
		t.Cleanup(a.start())
		t.Cleanup(b.start())
		wait(5 * time.Second)
		if s := a.Statuses()[0]; s.State != Up || s.Source != second || s.Local.IsValid() {
			t.Errorf("%+v", s)
		}
	})
}

func TestStrangersAreCountedAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := newBench(t, Session{Peer: router})
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(b.metrics)
		b.quiet.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		stranger := func(addr string) {
			r := arrived(endpoint{}, netip.MustParseAddr(addr), own, 255, packet{state: Down, multiplier: 3, mine: 1}.append(nil))
			b.work(&r)
		}
		for range 100 {
			stranger("192.0.2.66")
			stranger("192.0.2.67")
			time.Sleep(ms)
		}
		if n := strings.Count(log.String(), "dropped"); n != 2 {
			t.Errorf("it is logged %d times: %s", n, log.String())
		}
		time.Sleep(quietTime)
		stranger("192.0.2.66")
		if n := strings.Count(log.String(), "dropped"); n != 3 {
			t.Errorf("a minute later it was logged %d times", n)
		}
		if n := values(t, registry)[`dropped_packets_total reason="stranger"`]; n != 201 {
			t.Errorf("%v are counted", n)
		}
		if s := b.status(); s.PacketsIn != 0 || s.State != Down {
			t.Errorf("%+v", s)
		}
		for i := range 2 * quietSources {
			stranger(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String())
		}
		if n := len(b.quiet.logged); n > quietSources {
			t.Errorf("%d sources are remembered", n)
		}
	})
}

func TestHints(t *testing.T) {
	for _, c := range []struct {
		name string
		r    func() received
		want string
	}{
		{"TTL", func() received { return arrived(endpoint{}, router, own, 254, nil) }, "multihop"},
		{"authentication", func() received {
			b := packet{state: Down, multiplier: 3, mine: 1}.append(nil)
			b[1] |= flagAuthentication
			b[3] = 26
			return arrived(endpoint{}, router, own, 255, append(b, 1, 2))
		}, "authenticates"},
	} {
		standstill(t, c.name, func(t *testing.T) {
			b := newBench(t, Session{Peer: router})
			r := c.r()
			b.work(&r)
			if s := b.status(); !strings.Contains(s.LastError, c.want) || s.State != Down {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestSourcePortStays: RFC 5881, section 4. A source address that the kernel chose is asked for again as long as the session is not up.
func TestSourcePortStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Session{Peer: router})
		for range 60 {
			time.Sleep(time.Second)
			b.work(nil)
		}
		if n := len(b.net.paths); n < 5 || n > 13 {
			t.Errorf("the way was looked for %d times in a minute", n)
		}
		for i, p := range b.net.paths {
			if p.local.Port() != b.net.paths[0].local.Port() || p.closed == (i == len(b.net.paths)-1) {
				t.Errorf("way %d: %+v", i, p)
			}
		}
	})
}

// TestReceivingAllocatesNothing is about the packets of which there are thousands: those that change nothing.
func TestReceivingAllocatesNothing(t *testing.T) {
	b := at(t, Up)
	x := b.session()
	payload := packet{state: Up, final: true, multiplier: 3, mine: 7, yours: x.discriminator, desiredTx: time.Second, requiredRx: time.Second}.append(nil)
	b.bytes(payload)
	r := arrived(endpoint{}, router, own, 255, payload)
	if n := testing.AllocsPerRun(1000, func() {
		r = arrived(endpoint{}, router, own, 255, payload)
		b.work(&r)
	}); n > 0 {
		t.Errorf("%v allocations for each packet", n)
	}
}
