package peering

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/bgp/gobgp"
)

// speaker is a node's engine, told what it is to do as the product tells it: by differences.
type speaker struct {
	*gobgp.Server
	t    *testing.T
	want bgp.Desired
}

// speak starts a node's engine.
func speak(t *testing.T) *speaker {
	t.Helper()
	s := &speaker{Server: gobgp.New(slog.New(slog.NewTextHandler(t.Output(), nil))), t: t}
	s.want = bgp.Desired{RouterID: addr4("node")}
	t.Cleanup(s.Stop)
	return s
}

// desire makes what the node is to announce what f makes of it.
func (s *speaker) desire(f func(*bgp.Desired)) {
	s.t.Helper()
	old := s.want
	s.want.Peers = append([]bgp.Peer(nil), old.Peers...)
	s.want.Routes = append([]bgp.Route(nil), old.Routes...)
	f(&s.want)
	if err := s.Apply(bgp.Diff(old, s.want)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *speaker) session(peer string) bgp.Session {
	for _, one := range s.Sessions() {
		if one.Peer == peer {
			return one
		}
	}
	return bgp.Session{}
}

func (s *speaker) established(peers ...string) {
	s.t.Helper()
	for _, peer := range peers {
		eventually(s.t, "a session with "+peer, func() error {
			if one := s.session(peer); one.State != bgp.Established {
				return fmt.Errorf("it is %v: %s", one.State, one.LastError)
			}
			return nil
		})
	}
}

// peer is an external peer with both families.
func peer(name string, address netip.Addr) bgp.Peer {
	return bgp.Peer{
		Name: name, Address: address, Port: 179, LocalASN: 65001, PeerASN: 64512, HoldTime: 9 * time.Second, KeepaliveTime: 3 * time.Second,
		ConnectTime: time.Second, IPv4: true, IPv6: true, NextHop4: addr4("node"), NextHop6: addr6("node"),
	}
}

func route(prefix string, attributes bgp.Attributes, peers ...string) bgp.Route {
	return bgp.Route{Prefix: netip.MustParsePrefix(prefix), Paths: []bgp.Path{{Peers: peers, Attributes: &attributes}}}
}

// learns waits until a router has so many routes of a family.
func learns(t *testing.T, f *router.FRR, v6 bool, want int) map[netip.Prefix][]router.Path {
	t.Helper()
	var routes map[netip.Prefix][]router.Path
	eventually(t, fmt.Sprintf("%d routes in FRR", want), func() error {
		var err error
		routes, err = f.Routes(t.Context(), v6)
		if err == nil && len(routes) != want {
			err = fmt.Errorf("it has %d", len(routes))
		}
		return err
	})
	return routes
}

// shows waits until FRR says of a prefix what it should.
func shows(t *testing.T, f *router.FRR, prefix string, check func(router.Path) bool) {
	t.Helper()
	eventually(t, prefix+" in FRR as it should be", func() error {
		paths, err := f.Route(t.Context(), netip.MustParsePrefix(prefix))
		if err == nil && (len(paths) != 1 || !check(paths[0])) {
			err = fmt.Errorf("it has %+v", paths)
		}
		return err
	})
}

func communities(t *testing.T, texts ...string) []bgp.Community {
	t.Helper()
	var list []bgp.Community
	for _, text := range texts {
		c, err := bgp.ParseCommunity(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// withdrawals returns how many prefixes BIRD was told to forget.
func withdrawals(t *testing.T, b *router.BIRD) []string {
	t.Helper()
	out, err := b.Birdc(t.Context(), "show protocols all")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "Import" && fields[1] == "withdraws:" {
			lines = append(lines, fields[2])
		}
	}
	return lines
}

func TestAttributes(t *testing.T) {
	f := frr(t, "frr", `
router bgp 64512
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor 192.0.2.11 remote-as 4200000001
 neighbor 192.0.2.11 passive
 address-family ipv6 unicast
  neighbor 192.0.2.11 activate
`)
	internal := frr(t, "frr2", `
router bgp 65001
 bgp router-id 192.0.2.2
 neighbor 192.0.2.11 remote-as 65001
 neighbor 192.0.2.11 passive
 address-family ipv6 unicast
  neighbor 192.0.2.11 activate
`)
	b := bird(t, "bird", `
router id 192.0.2.3;
protocol device {}
protocol bgp node { local 192.0.2.3 as 64513; neighbor 192.0.2.11 as 65001; passive; ipv4 { import all; export none; }; ipv6 { import all; export none; }; }
`)
	s := speak(t)
	all := []string{"bird", "frr", "frr2"}
	everything := bgp.Attributes{
		LocalPref: 333, MED: 77, HasMED: true, Prepend: 2, Bandwidth: 250_000,
		Communities: communities(t, "65001:100", "no-export", "large:65001:1:2"),
	}
	s.desire(func(d *bgp.Desired) {
		external, inside, third := peer("frr", addr4("frr")), peer("frr2", addr4("frr2")), peer("bird", addr4("bird"))
		external.LocalASN, inside.PeerASN, third.PeerASN = 4200000001, 65001, 64513
		d.Peers = []bgp.Peer{third, external, inside}
		d.Routes = []bgp.Route{
			route("203.0.113.1/32", bgp.Attributes{}, all...),
			route("203.0.113.2/32", everything, all...),
			{Prefix: netip.MustParsePrefix("203.0.113.3/32"), Paths: []bgp.Path{
				{Peers: []string{"frr"}, Attributes: &bgp.Attributes{Communities: communities(t, "1:1")}},
				{Peers: []string{"frr2"}, Attributes: &bgp.Attributes{Communities: communities(t, "2:2"), LocalPref: 50}},
			}},
			route("203.0.113.4/32", bgp.Attributes{HasMED: true}, "frr2"),
			route("2001:db8:f::/64", everything, all...),
		}
	})
	s.established(all...)

	t.Run("none", func(t *testing.T) {
		shows(t, f, "203.0.113.1/32", func(p router.Path) bool { return p.ASPath == "4200000001" && len(p.Communities) == 0 && p.MED == 0 })
		shows(t, internal, "203.0.113.1/32", func(p router.Path) bool { return p.ASPath == "Local" && p.LocalPref == 100 && len(p.Communities) == 0 })
	})
	t.Run("all", func(t *testing.T) {
		for _, prefix := range []string{"203.0.113.2/32", "2001:db8:f::/64"} {
			shows(t, f, prefix, func(p router.Path) bool {
				return p.ASPath == "4200000001 4200000001 4200000001" && p.MED == 77 && p.LocalPref == 0 &&
					fmt.Sprint(p.Communities) == "[65001:100 no-export 65001:1:2 LB:65001:250000 (2.000 Mbps)]"
			})
			shows(t, internal, prefix, func(p router.Path) bool {
				return p.ASPath == "Local" && p.MED == 77 && p.LocalPref == 333 && len(p.Communities) >= 4
			})
		}
	})
	t.Run("by peer", func(t *testing.T) {
		shows(t, f, "203.0.113.3/32", func(p router.Path) bool { return fmt.Sprint(p.Communities) == "[1:1]" })
		shows(t, internal, "203.0.113.3/32", func(p router.Path) bool { return fmt.Sprint(p.Communities) == "[2:2]" && p.LocalPref == 50 })
		learns(t, f, false, 3)
		learns(t, internal, false, 4)
	})
	t.Run("BIRD", func(t *testing.T) {
		eventually(t, "BIRD to know as much", func() error {
			routes, err := b.Routes(t.Context())
			if p := routes[netip.MustParsePrefix("203.0.113.2/32")]; err == nil && (len(routes) != 3 || len(p) != 1 || p[0].MED != 77 || len(p[0].Communities) != 4) {
				err = fmt.Errorf("it has %+v", routes)
			}
			return err
		})
	})
	t.Run("announced", func(t *testing.T) {
		for name, want := range map[string]int{"frr": 4, "frr2": 5, "bird": 3} {
			if got := s.session(name).Announced; got != want {
				t.Errorf("%s is said to be told %d prefixes, not %d", name, got, want)
			}
		}
	})

	t.Run("change", func(t *testing.T) {
		before := withdrawals(t, b)
		up := s.session("frr").Since
		s.desire(func(d *bgp.Desired) {
			d.Routes[1] = route("203.0.113.2/32", bgp.Attributes{Communities: communities(t, "65001:101")}, all...)
			d.Routes[4] = route("2001:db8:f::/64", bgp.Attributes{MED: 1, HasMED: true}, all...)
		})
		shows(t, f, "203.0.113.2/32", func(p router.Path) bool {
			return fmt.Sprint(p.Communities) == "[65001:101]" && p.MED == 0 && p.ASPath == "4200000001"
		})
		shows(t, internal, "203.0.113.2/32", func(p router.Path) bool { return fmt.Sprint(p.Communities) == "[65001:101]" && p.LocalPref == 100 })
		shows(t, f, "2001:db8:f::/64", func(p router.Path) bool { return p.MED == 1 && len(p.Communities) == 0 })
		eventually(t, "BIRD to know of it", func() error {
			routes, err := b.Routes(t.Context())
			if p := routes[netip.MustParsePrefix("203.0.113.2/32")]; err == nil && (len(p) != 1 || len(p[0].Communities) != 1) {
				err = fmt.Errorf("it has %+v", routes)
			}
			return err
		})
		if after := withdrawals(t, b); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("BIRD was told to forget something: %v before, %v after", before, after)
		}
		if s.session("frr").Since != up {
			t.Error("the session was another one afterwards")
		}
	})
	t.Run("a peer less", func(t *testing.T) {
		s.desire(func(d *bgp.Desired) { d.Routes[1] = route("203.0.113.2/32", bgp.Attributes{}, "bird", "frr2") })
		learns(t, f, false, 2)
		learns(t, internal, false, 4)
	})
	t.Run("gone", func(t *testing.T) {
		s.desire(func(d *bgp.Desired) { d.Routes = d.Routes[:1] })
		learns(t, f, false, 1)
		learns(t, f, true, 0)
		learns(t, internal, false, 1)
		eventually(t, "BIRD to know of it", func() error {
			routes, err := b.Routes(t.Context())
			if err == nil && len(routes) != 1 {
				err = fmt.Errorf("it has %+v", routes)
			}
			return err
		})
	})
	t.Run("a peer gone", func(t *testing.T) {
		up := s.session("bird").Since
		s.desire(func(d *bgp.Desired) { d.Peers = d.Peers[:2] })
		learns(t, internal, false, 0)
		if len(s.Sessions()) != 2 || s.session("bird").Since != up {
			t.Errorf("the others' sessions: %+v", s.Sessions())
		}
	})
}

// addAddress gives a machine another address until the test ends.
func addAddress(t *testing.T, machine, address string) {
	t.Helper()
	length := "24"
	if strings.Contains(address, ":") {
		length = "64"
	}
	if _, err := on(machine).Run(t.Context(), "ip", "addr", "add", address+"/"+length, "dev", "eth0", "nodad"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := on(machine).Run(context.Background(), "ip", "addr", "del", address+"/"+length, "dev", "eth0"); err != nil {
			t.Error(err)
		}
	})
}

func sortDesired(d *bgp.Desired) {
	slices.SortFunc(d.Peers, func(a, b bgp.Peer) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Routes, func(a, b bgp.Route) int { return a.Prefix.Compare(b.Prefix) })
}
