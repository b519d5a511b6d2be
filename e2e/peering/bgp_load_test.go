package peering

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

const many = 10_000

// tenThousand are as many routes, half of each family.
func tenThousand(peers ...string) []bgp.Route {
	paths := []bgp.Path{{Peers: peers, Attributes: &bgp.Attributes{}}}
	var routes []bgp.Route
	for i := range many / 2 {
		routes = append(routes,
			bgp.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32), Paths: paths},
			bgp.Route{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}), 128), Paths: paths})
	}
	return routes
}

// received returns how many routes FRR has learned from a neighbour.
func received(t *testing.T, f *router.FRR, address string) int {
	t.Helper()
	var summary map[string]struct {
		Peers map[string]struct {
			Received int `json:"pfxRcd"`
		} `json:"peers"`
	}
	if err := f.JSON(t.Context(), "show bgp summary json", &summary); err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, family := range summary {
		sum += family.Peers[address].Received
	}
	return sum
}

func receives(t *testing.T, f *router.FRR, address string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d routes from %s in FRR", want, address), func() error {
		if got := received(t, f, address); got != want {
			return fmt.Errorf("it has %d", got)
		}
		return nil
	})
}

func TestManyRoutes(t *testing.T) {
	node6, frr6 := linkLocal(t, "node"), linkLocal(t, "frr")
	var networks strings.Builder
	for i := range many {
		fmt.Fprintf(&networks, "  network 10.2.%d.%d/32\n", i>>8, i&255)
	}
	f := frr(t, "frr", strings.ReplaceAll(`
router bgp 64512
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 192.0.2.11 remote-as 65001
 neighbor 192.0.2.11 passive
 neighbor NODE remote-as 65001
 neighbor NODE interface eth0
 neighbor NODE passive
 neighbor NODE capability extended-nexthop
 address-family ipv4 unicast
`, "NODE", node6.String())+networks.String()+strings.ReplaceAll(`
 exit-address-family
 address-family ipv6 unicast
  neighbor 192.0.2.11 activate
  neighbor NODE activate
`, "NODE", node6.String()))

	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s := speak(t)
	p := peer("frr", addr4("frr"))
	local := peer("link-local", frr6.WithZone("eth0"))
	local.NextHop4, local.NextHop6 = netip.Addr{}, netip.Addr{}
	s.desire(func(*bgp.Desired) {})
	before := heap()
	s.desire(func(d *bgp.Desired) { d.Peers = []bgp.Peer{p} })
	s.established("frr")

	t.Run("what the router announces is not kept", func(t *testing.T) {
		eventually(t, "FRR to have told its routes", func() error {
			var summary struct {
				IPv4 struct {
					Peers map[string]struct{ PfxSnt int } `json:"peers"`
				} `json:"ipv4Unicast"`
			}
			err := f.JSON(t.Context(), "show bgp summary json", &summary)
			if n := summary.IPv4.Peers["192.0.2.11"].PfxSnt; err == nil && (n != many || s.session("frr").Counters.UpdatesReceived < 1) {
				err = fmt.Errorf("it told %d", n)
			}
			return err
		})
		// GoBGP would need 5 MB at least for as many.
		if after := heap(); after > before+1<<20 {
			t.Errorf("the heap grew by %d bytes", after-before)
		} else {
			t.Logf("the heap grew by %d bytes", int64(after-before))
		}
	})

	t.Run("told", func(t *testing.T) {
		before := s.session("frr").Counters.UpdatesSent
		start := time.Now()
		s.desire(func(d *bgp.Desired) { d.Routes = tenThousand("frr", "link-local"); sortDesired(d) })
		applied := time.Since(start)
		receives(t, f, "192.0.2.11", many)
		t.Logf("%d routes in FRR after %v (applied after %v) in %d UPDATEs", many, time.Since(start), applied, s.session("frr").Counters.UpdatesSent-before)
		if n := s.session("frr").Counters.UpdatesSent - before; n > 300 {
			t.Errorf("that took %d UPDATEs", n)
		}
	})
	t.Run("one more and one less", func(t *testing.T) {
		extra := netip.MustParsePrefix("203.0.113.1/32")
		start := time.Now()
		s.desire(func(d *bgp.Desired) {
			d.Routes = append(d.Routes, route(extra.String(), bgp.Attributes{}, "frr"))
			sortDesired(d)
		})
		shows(t, f, extra.String(), func(router.Path) bool { return true })
		t.Logf("one route more in FRR after %v", time.Since(start))
		start = time.Now()
		s.desire(func(d *bgp.Desired) {
			d.Routes = tenThousand("frr", "link-local")
			sortDesired(d)
		})
		eventually(t, "one route less", func() error {
			paths, err := f.Route(t.Context(), extra)
			if err == nil && len(paths) > 0 {
				err = fmt.Errorf("it has %v", paths)
			}
			return err
		})
		t.Logf("one route less in FRR after %v", time.Since(start))
	})
	t.Run("a new session", func(t *testing.T) {
		s.desire(func(d *bgp.Desired) { d.Peers = []bgp.Peer{p, local} })
		s.established("link-local")
		start := time.Now()
		receives(t, f, node6.String(), many)
		n := s.session("link-local").Counters.UpdatesSent
		t.Logf("%d routes in FRR %v after the session was up, in %d UPDATEs, IPv4 with IPv6 next hops", many, time.Since(start), n)
		if n > 300 {
			t.Errorf("that took %d UPDATEs", n)
		}
		if got := received(t, f, "192.0.2.11"); got != many {
			t.Errorf("the other session has %d routes", got)
		}
	})
	t.Run("other attributes", func(t *testing.T) {
		before := s.session("frr").Counters.UpdatesSent
		s.desire(func(d *bgp.Desired) {
			paths := []bgp.Path{{Peers: []string{"frr"}, Attributes: &bgp.Attributes{Communities: communities(t, "65001:1")}}}
			for i := range d.Routes {
				d.Routes[i].Paths = paths
			}
		})
		receives(t, f, node6.String(), 0)
		shows(t, f, "10.1.19.135/32", func(p router.Path) bool { return len(p.Communities) == 1 })
		t.Logf("changed in %d UPDATEs", s.session("frr").Counters.UpdatesSent-before)
		if got := received(t, f, "192.0.2.11"); got != many {
			t.Errorf("FRR has %d routes", got)
		}
	})
}
