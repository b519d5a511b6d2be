package peering

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// watchRoutes reads FRR's routes until stop is called, which returns the least number that it ever had.
func watchRoutes(t *testing.T, f *router.FRR, v6 bool) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	least := make(chan int, 1)
	go func() {
		n := 1 << 30
		for ctx.Err() == nil {
			if routes, err := f.Routes(t.Context(), v6); err == nil {
				n = min(n, len(routes))
			}
		}
		least <- n
	}()
	return func() int {
		cancel()
		return <-least
	}
}

const restartFRR = `
router bgp 64512
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor 192.0.2.11 remote-as 65001
 neighbor 192.0.2.11 passive
 neighbor 192.0.2.11 timers connect 1
 neighbor 192.0.2.91 remote-as 65001
 neighbor 192.0.2.91 passive
 neighbor 192.0.2.91 timers connect 1
 address-family ipv6 unicast
  neighbor 192.0.2.11 activate
  neighbor 192.0.2.91 activate
`

func TestRestart(t *testing.T) {
	whole := t
	f := frr(t, "frr", restartFRR)
	addAddress(t, "node", "192.0.2.91")
	graceful, abrupt, gone := peer("abrupt", addr4("frr")), peer("graceful", addr4("frr")), peer("gone", netip.MustParseAddr("192.0.2.99"))
	graceful, abrupt = abrupt, graceful
	graceful.RestartTime, gone.RestartTime = 2*time.Minute, 2*time.Minute
	abrupt.Source = netip.MustParseAddr("192.0.2.91")
	mine := func(d *bgp.Desired) {
		d.Peers = []bgp.Peer{abrupt, gone, graceful}
		d.Routes = nil
		for i := range 100 {
			d.Routes = append(d.Routes,
				route(fmt.Sprintf("203.0.113.%d/32", i), bgp.Attributes{}, "gone", "graceful"),
				route(fmt.Sprintf("2001:db8:f::%x/128", i), bgp.Attributes{}, "gone", "graceful"),
				route(fmt.Sprintf("198.18.0.%d/32", i), bgp.Attributes{}, "abrupt"))
		}
		sortDesired(d)
	}
	s := speak(t)
	start := time.Now()
	s.desire(mine)
	s.established("graceful", "abrupt")
	receives(t, f, "192.0.2.11", 200)
	receives(t, f, "192.0.2.91", 100)
	t.Logf("first start: %v", time.Since(start))

	t.Run("graceful", func(t *testing.T) {
		four, six := watchRoutes(t, f, false), watchRoutes(t, f, true)
		s.Stop()
		// Those without graceful restart are withdrawn at once.
		receives(t, f, "192.0.2.91", 0)
		if n := neighborOf(t, f, "192.0.2.11"); n.State == "Established" {
			t.Errorf("FRR still has the session: %+v", n)
		}
		s = speak(whole)
		start := time.Now()
		s.desire(mine)
		s.established("graceful")
		t.Logf("session after %v, though another peer with graceful restart can't be reached", time.Since(start))
		eventually(t, "no route to be stale", func() error {
			routes, err := f.Routes(t.Context(), false)
			for prefix, paths := range routes {
				if err == nil && paths[0].Stale {
					err = fmt.Errorf("%s is stale", prefix)
				}
			}
			return err
		})
		t.Logf("nothing stale after %v", time.Since(start))
		receives(t, f, "192.0.2.91", 100)
		if n := four(); n < 100 {
			t.Errorf("FRR had no more than %d of the graceful peer's 100 IPv4 routes for a moment", n)
		}
		if n := six(); n < 100 {
			t.Errorf("FRR had no more than %d of 100 IPv6 routes for a moment", n)
		}
	})
	t.Run("a route goes meanwhile", func(t *testing.T) {
		s.Stop()
		s = speak(whole)
		s.desire(func(d *bgp.Desired) { mine(d); d.Routes = d.Routes[:len(d.Routes)-1] })
		s.established("graceful", "abrupt")
		receives(t, f, "192.0.2.11", 199)
	})
	t.Run("a broken connection", func(t *testing.T) {
		since := s.session("graceful").Since
		four, six := watchRoutes(t, f, false), watchRoutes(t, f, true)
		if out, err := on("node").Run(t.Context(), "ss", "-K", "dst", "192.0.2.1", "src", "192.0.2.11"); err != nil {
			t.Skip("this kernel can't break connections: ", err, out)
		}
		eventually(t, "another session", func() error {
			if one := s.session("graceful"); one.State != bgp.Established || one.Since == since {
				return fmt.Errorf("it is %v since %v", one.State, one.Since)
			}
			return nil
		})
		receives(t, f, "192.0.2.11", 199)
		if a, b := four(), six(); a < 200 || b < 99 {
			t.Errorf("FRR had no more than %d and %d routes for a moment", a, b)
		}
	})
	t.Run("reset", func(t *testing.T) {
		before := neighborOf(t, f, "192.0.2.91")
		start := time.Now()
		s.Reset("graceful", "BFD says that the router is down")
		if one := s.session("graceful"); one.State == bgp.Established || !strings.Contains(one.LastError, "BFD") {
			t.Errorf("the session: %+v", one)
		}
		eventually(t, "FRR to forget the routes at once, graceful or not", func() error {
			if n := received(t, f, "192.0.2.11"); n != 0 {
				return fmt.Errorf("it has %d", n)
			}
			return nil
		})
		t.Logf("FRR forgot everything after %v", time.Since(start))
		// Orders to reset that find no session must not end the next one.
		for range 3 {
			s.Reset("graceful", "again")
			s.Reset("gone", "again")
		}
		s.established("graceful")
		receives(t, f, "192.0.2.11", 199)
		time.Sleep(500 * time.Millisecond) // for what must not happen
		if after := neighborOf(t, f, "192.0.2.91"); after.Established != before.Established {
			t.Error("the other session was ended, too")
		}
		if n := neighborOf(t, f, "192.0.2.11"); n.State != "Established" {
			t.Errorf("the session ended once more: %+v", n)
		}
	})
}

func TestRouterRestart(t *testing.T) {
	f := frr(t, "frr", restartFRR)
	s := speak(t)
	s.desire(func(d *bgp.Desired) {
		d.Peers = []bgp.Peer{peer("frr", addr4("frr"))}
		d.Routes = []bgp.Route{route("203.0.113.1/32", bgp.Attributes{}, "frr")}
	})
	s.established("frr")
	receives(t, f, "192.0.2.11", 1)
	if err := f.Daemon("bgpd").Stop(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session to end", func() error {
		if one := s.session("frr"); one.State == bgp.Established || one.LastError == "" || one.Announced != 0 {
			return fmt.Errorf("%+v", one)
		}
		return nil
	})
	if err := f.Start(t.Context(), "bgpd"); err != nil {
		t.Fatal(err)
	}
	if err := f.Configure(t.Context(), restartFRR); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	s.established("frr")
	receives(t, f, "192.0.2.11", 1)
	t.Logf("FRR has its routes again %v after it was configured", time.Since(start))
}

func TestUntouched(t *testing.T) {
	f := frr(t, "frr", restartFRR)
	addAddress(t, "node", "192.0.2.91")
	s := speak(t)
	one, other := peer("one", addr4("frr")), peer("other", addr4("frr"))
	other.Source = netip.MustParseAddr("192.0.2.91")
	s.desire(func(d *bgp.Desired) {
		d.Peers = []bgp.Peer{one, other}
		for i := range 10 {
			d.Routes = append(d.Routes, route(fmt.Sprintf("203.0.113.%d/32", i), bgp.Attributes{}, "one", "other"), route(fmt.Sprintf("2001:db8:f::%x/128", i), bgp.Attributes{}, "one", "other"))
		}
		sortDesired(d)
	})
	s.established("one", "other")
	receives(t, f, "192.0.2.11", 20)
	receives(t, f, "192.0.2.91", 20)
	first := neighborOf(t, f, "192.0.2.91")

	for _, c := range []struct {
		name   string
		change func(*bgp.Peer)
		same   bool // the session itself stays
	}{
		{"nothing", func(*bgp.Peer) {}, true},
		{"connect time", func(p *bgp.Peer) { p.ConnectTime = 2 * time.Second }, true},
		{"keepalive time", func(p *bgp.Peer) { p.KeepaliveTime = 2 * time.Second }, true},
		{"next hop", func(p *bgp.Peer) { p.NextHop6 = netip.MustParseAddr("2001:db8:1::77") }, true},
		{"hold time", func(p *bgp.Peer) { p.HoldTime = 30 * time.Second }, false},
		{"restart time", func(p *bgp.Peer) { p.RestartTime = 10 * time.Second }, false},
		{"hold time, gracefully", func(p *bgp.Peer) { p.HoldTime = 33 * time.Second }, false},
		{"family", func(p *bgp.Peer) { p.IPv6 = false }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, count := neighborOf(t, f, "192.0.2.11"), s.session("one").Counters
			s.desire(func(d *bgp.Desired) { c.change(&d.Peers[0]) })
			if c.same {
				if c.name == "next hop" {
					_ = router.Path{}
					eventually(t, "the other next hop", func() error {
						routes, err := f.Route(t.Context(), netip.MustParsePrefix("2001:db8:f::1/128"))
						if err == nil && !strings.Contains(fmt.Sprint(routes), "2001:db8:1::77") {
							err = fmt.Errorf("it has %+v", routes)
						}
						return err
					})
				} else if n := s.session("one").Counters.UpdatesSent; n != count.UpdatesSent {
					t.Errorf("%d UPDATEs were sent", n-count.UpdatesSent)
				}
			} else {
				eventually(t, "another session", func() error {
					if n := neighborOf(t, f, "192.0.2.11"); n.State != "Established" || n.Established <= before.Established {
						return fmt.Errorf("it is %s for the %d. time", n.State, n.Established)
					}
					return nil
				})
				s.established("one")
			}
			if n := neighborOf(t, f, "192.0.2.11"); c.same && n.Established != before.Established {
				t.Error("the session was ended")
			}
			if n := neighborOf(t, f, "192.0.2.91"); n.Established != first.Established || n.Messages.UpdatesReceived != first.Messages.UpdatesReceived {
				t.Errorf("the other session was touched: %+v, first %+v", n, first)
			}
		})
	}
}
