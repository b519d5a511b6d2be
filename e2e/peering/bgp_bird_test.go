package peering

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// has waits until BIRD has the prefixes, and nothing else, and returns its routes.
func has(t *testing.T, b *router.BIRD, want ...string) map[netip.Prefix][]router.Path {
	t.Helper()
	var routes map[netip.Prefix][]router.Path
	eventually(t, fmt.Sprintf("%v in BIRD", want), func() error {
		var err error
		routes, err = b.Routes(t.Context())
		for _, prefix := range want {
			if err == nil && routes[netip.MustParsePrefix(prefix)] == nil {
				err = fmt.Errorf("%s is missing of %v", prefix, routes)
			}
		}
		if err == nil && len(routes) != len(want) {
			err = fmt.Errorf("it has %v", routes)
		}
		return err
	})
	return routes
}

func TestBIRD(t *testing.T) {
	node6, bird6 := linkLocal(t, "node"), linkLocal(t, "bird")
	addAddress(t, "node", "192.0.2.92")
	addAddress(t, "node", "192.0.2.93")
	b := bird(t, "bird", strings.NewReplacer("NODE6", node6.String(), "BIRD6", bird6.String()).Replace(`
router id 192.0.2.3;
protocol device {}
template bgp any { local as 64513; passive; graceful restart on; ipv4 { import all; export none; }; ipv6 { import all; export none; }; }
protocol bgp at1179 from any { local 192.0.2.3 port 1179 as 64513; neighbor 192.0.2.11 as 65001; password "Correct"; }
protocol bgp old from any { neighbor 192.0.2.92 as 65001; enable as4 off; }
protocol bgp lan from any { local BIRD6 as 64513; neighbor NODE6 % 'eth0' as 65001; ipv4 { import all; export none; extended next hop on; }; }
protocol bgp restarting from any { neighbor 192.0.2.93 as 65001; }
`))
	distant := bird(t, far, `
router id 198.51.100.2;
protocol device {}
protocol static { ipv4; route 192.0.2.0/24 via 198.51.100.1; }
protocol static { ipv6; route 2001:db8:1::/64 via 2001:db8:2::1; }
protocol bgp node { local 198.51.100.2 as 64515; neighbor 192.0.2.11 as 65001; multihop; passive; ipv4 { import all; export none; }; ipv6 { import all; export none; }; }
protocol bgp node6 { local 2001:db8:2::2 as 64515; neighbor 2001:db8:1::11 as 65001; multihop; passive; ipv6 { import all; export none; }; }
`)
	s := speak(t)
	mine := func(d *bgp.Desired) {
		of := func(name, address string, change func(*bgp.Peer)) {
			p := peer(name, netip.MustParseAddr(address))
			p.PeerASN = 64513
			change(&p)
			d.Peers = append(d.Peers, p)
		}
		d.Peers, d.Routes = nil, nil
		of("port", "192.0.2.3", func(p *bgp.Peer) { p.Port, p.Password = 1179, "Correct" })
		of("old", "192.0.2.3", func(p *bgp.Peer) { p.Source = netip.MustParseAddr("192.0.2.92") })
		of("lan", bird6.String()+"%eth0", func(p *bgp.Peer) { p.NextHop4, p.NextHop6 = netip.Addr{}, netip.Addr{} })
		of("restarting", "192.0.2.3", func(p *bgp.Peer) { p.Source, p.RestartTime = netip.MustParseAddr("192.0.2.93"), time.Minute })
		of("far", "198.51.100.2", func(p *bgp.Peer) { p.PeerASN, p.Multihop = 64515, true })
		of("far6", "2001:db8:2::2", func(p *bgp.Peer) { p.PeerASN, p.Multihop, p.IPv4 = 64515, true, false })
		of("near", "198.51.100.2", func(p *bgp.Peer) { p.PeerASN = 64515 }) // one hop too near
		for i, p := range d.Peers {
			d.Routes = append(d.Routes, route(fmt.Sprintf("203.0.113.%d/32", i), bgp.Attributes{}, p.Name), route(fmt.Sprintf("2001:db8:f::%d/128", i), bgp.Attributes{}, p.Name))
		}
		sortDesired(d)
	}
	s.desire(mine)
	s.established("port", "old", "lan", "restarting", "far", "far6")

	nearby := []string{
		"203.0.113.0/32", "2001:db8:f::/128", "203.0.113.1/32", "2001:db8:f::1/128",
		"203.0.113.2/32", "2001:db8:f::2/128", "203.0.113.3/32", "2001:db8:f::3/128",
	}
	routes := has(t, b, nearby...)
	for _, prefix := range []string{"203.0.113.2/32", "2001:db8:f::2/128"} {
		if p := routes[netip.MustParsePrefix(prefix)][0]; len(p.NextHops) != 1 || p.NextHops[0] != node6 {
			t.Errorf("the next hop of %s: %v", prefix, p.NextHops)
		}
	}
	if p := routes[netip.MustParsePrefix("203.0.113.1/32")][0]; p.ASPath != "65001" {
		t.Errorf("the AS path for a router with ASNs of two bytes: %q", p.ASPath)
	}
	has(t, distant, "203.0.113.4/32", "2001:db8:f::4/128", "2001:db8:f::5/128")
	eventually(t, "an error for a far router without multihop", func() error {
		if one := s.session("near"); one.State == bgp.Established || one.LastError == "" {
			return fmt.Errorf("it is %v: %s", one.State, one.LastError)
		}
		return nil
	})

	t.Run("graceful restart", func(t *testing.T) {
		s.Stop()
		has(t, b, "203.0.113.3/32", "2001:db8:f::3/128")
		s = speak(t)
		s.desire(mine)
		s.established("restarting", "lan")
		has(t, b, nearby...)
	})
}

// TestInterfaces has routers with one link-local address on two interfaces of the node, and one in a VRF.
func TestInterfaces(t *testing.T) {
	script := `
ip netns add twin
ip -n twin link set lo up
ip netns exec twin sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
for i in 1 2; do
  ip link add twin$i type veth peer name eth$i netns twin
  ip link set twin$i addrgenmode none
  ip link set twin$i up
  ip -n twin link set eth$i addrgenmode none
  ip -n twin link set eth$i up
  ip addr add fe80::1/64 dev twin$i nodad
  ip -n twin addr add fe80::2/64 dev eth$i nodad
done
`
	if out, err := on("node").Run(t.Context(), "sh", "-ec", script); err != nil {
		t.Fatal(err, out)
	}
	b := bird(t, "twin", `
router id 192.0.2.20;
protocol device {}
template bgp any { passive; local fe80::2 as 64520; ipv4 { import all; export none; extended next hop on; }; ipv6 { import all; export none; }; }
protocol bgp one from any { neighbor fe80::1 % 'eth1' as 65001; }
protocol bgp two from any { neighbor fe80::1 % 'eth2' as 65002; }
`)
	s := speak(t)
	s.desire(func(d *bgp.Desired) {
		for i, name := range []string{"one", "two"} {
			p := peer(name, netip.MustParseAddr(fmt.Sprintf("fe80::2%%twin%d", i+1)))
			p.LocalASN, p.PeerASN, p.NextHop4, p.NextHop6 = uint32(65001+i), 64520, netip.Addr{}, netip.Addr{}
			d.Peers = append(d.Peers, p)
			d.Routes = append(d.Routes, route(fmt.Sprintf("203.0.113.%d/32", i+1), bgp.Attributes{}, name))
		}
	})
	s.established("one", "two")
	for prefix, path := range map[string]string{"203.0.113.1/32": "65001", "203.0.113.2/32": "65002"} {
		if p := has(t, b, "203.0.113.1/32", "203.0.113.2/32")[netip.MustParsePrefix(prefix)]; p[0].ASPath != path {
			t.Errorf("%s: %+v", prefix, p)
		}
	}

	t.Run("VRF", func(t *testing.T) {
		if out, err := on("node").Run(t.Context(), "ip", "link", "add", "red", "type", "vrf", "table", "77"); err != nil {
			t.Skip("this kernel has no VRFs: ", err, out)
		}
		script := `
ip link set red up
ip link set twin2 master red
ip addr add 198.51.101.1/24 dev twin2
ip -n twin addr add 198.51.101.2/24 dev eth2
`
		if out, err := on("node").Run(t.Context(), "sh", "-ec", script); err != nil {
			t.Fatal(err, out)
		}
		if err := b.Configure(t.Context(), `
router id 192.0.2.20;
protocol device {}
protocol bgp red { passive; local 198.51.101.2 as 64520; neighbor 198.51.101.1 as 65001; password "Correct"; ipv4 { import all; export none; }; }
`); err != nil {
			t.Fatal(err)
		}
		p := peer("red", netip.MustParseAddr("198.51.101.2"))
		p.PeerASN, p.Device, p.Password, p.IPv6 = 64520, "red", "Correct", false
		s.desire(func(d *bgp.Desired) {
			d.Peers, d.Routes = []bgp.Peer{p}, []bgp.Route{route("203.0.113.3/32", bgp.Attributes{}, "red")}
		})
		s.established("red")
		has(t, b, "203.0.113.3/32")
	})
}
