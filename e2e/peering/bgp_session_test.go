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

// neighbor is what FRR says of a session.
type neighbor struct {
	State           string `json:"bgpState"`
	RouterID        string `json:"remoteRouterId"`
	Hold            int    `json:"bgpTimerHoldTimeMsecs"`
	Established     int    `json:"connectionsEstablished"`
	GracefulRestart struct {
		Remote string `json:"remoteGrMode"`
		Timers struct {
			Received int `json:"receivedRestartTimer"`
		} `json:"timers"`
		IPv4 struct {
			Preserved bool `json:"fBit"`
		} `json:"ipv4Unicast"`
	} `json:"gracefulRestartInfo"`
	Messages struct {
		UpdatesReceived int `json:"updatesRecv"`
	} `json:"messageStats"`
}

func neighborOf(t *testing.T, f *router.FRR, address string) neighbor {
	t.Helper()
	var all map[string]neighbor
	if err := f.JSON(t.Context(), "show bgp neighbors "+address+" json", &all); err != nil {
		t.Fatal(err)
	}
	return all[address]
}

// linkLocal returns a machine's link-local address on eth0.
func linkLocal(t *testing.T, machine string) netip.Addr {
	t.Helper()
	out, err := on(machine).Run(t.Context(), "ip", "-6", "-br", "addr", "show", "dev", "eth0", "scope", "link")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(out) {
		if p, err := netip.ParsePrefix(field); err == nil {
			return p.Addr()
		}
	}
	t.Fatalf("%s has no link-local address: %s", machine, out)
	return netip.Addr{}
}

// sessionCase is a session with the router frr, from an address of the node that it has to itself.
type sessionCase struct {
	name   string
	frr    string // FRR's lines about the neighbour NODE
	source string // the node's address; of IPv4 unless it has a colon
	change func(*bgp.Peer)
	check  func(*testing.T, neighbor)
	fails  string // what the session's LastError says then
}

func TestSessions(t *testing.T) {
	node6 := linkLocal(t, "node")
	cases := []sessionCase{
		{name: "ipv6", source: "2001:db8:1::201", frr: "neighbor NODE remote-as 65001"},
		{name: "link-local", source: node6.String(), frr: "neighbor NODE remote-as 65001\nneighbor NODE interface eth0\nneighbor NODE capability extended-nexthop",
			change: func(p *bgp.Peer) {
				p.Source, p.NextHop4, p.NextHop6 = netip.Addr{}, netip.Addr{}, netip.Addr{}
				p.Address = linkLocal(t, "frr").WithZone("eth0")
			}},
		{name: "asn", frr: "neighbor NODE remote-as 65103", change: func(p *bgp.Peer) { p.LocalASN = 65103 }},
		{name: "any-asn", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.PeerASN = 0 }},
		{name: "internal-is-not-external", frr: "neighbor NODE remote-as 64512", change: func(p *bgp.Peer) { p.PeerASN, p.LocalASN = 0, 64512 },
			fails: "not an external peer"},
		{name: "gtsm", frr: "neighbor NODE remote-as 65001\nneighbor NODE ttl-security hops 1", change: func(p *bgp.Peer) { p.TTLSecurity = 1 }},
		{name: "gtsm-here-only", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.TTLSecurity = 1 }, fails: "says nothing: GTSM"},
		{name: "password", frr: "neighbor NODE remote-as 65001\nneighbor NODE password Correct", change: func(p *bgp.Peer) { p.Password = "Correct" }},
		{name: "password-wrong", frr: "neighbor NODE remote-as 65001\nneighbor NODE password Correct",
			change: func(p *bgp.Peer) { p.Password = "wrong-secret" }, fails: "the password (TCP MD5) is not the router's"},
		{name: "password-missing", frr: "neighbor NODE remote-as 65001\nneighbor NODE password Correct", fails: "it expects a password"},
		{name: "password-unasked", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.Password = "wrong-secret" }, fails: "does not answer"},
		{name: "password-ipv6", source: "2001:db8:1::202", frr: "neighbor NODE remote-as 65001\nneighbor NODE password Correct",
			change: func(p *bgp.Peer) { p.Password = "Correct" }},
		{name: "timers", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.HoldTime, p.KeepaliveTime = 60*time.Second, 7*time.Second },
			check: func(t *testing.T, n neighbor) {
				if n.Hold != 60_000 {
					t.Errorf("hold time: %d ms", n.Hold)
				}
			}},
		{name: "no-hold-time", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.HoldTime, p.KeepaliveTime = 0, 0 },
			check: func(t *testing.T, n neighbor) {
				if n.Hold != 0 {
					t.Errorf("hold time: %d ms", n.Hold)
				}
			}},
		{name: "restart-time", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.RestartTime = 77 * time.Second },
			check: func(t *testing.T, n neighbor) {
				if g := n.GracefulRestart; g.Remote != "Restart" || g.Timers.Received != 77 || !g.IPv4.Preserved {
					t.Errorf("graceful restart: %+v", g)
				}
			}},
		{name: "device", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.Device = "eth0" }},
		{name: "device-missing", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.Device = "eth7" }, fails: `no interface "eth7"`},
		{name: "source-missing", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.Source = netip.MustParseAddr("192.0.2.77") },
			fails: "does not have that address"},
		{name: "refused", change: func(p *bgp.Peer) { p.Port = 4444 }, fails: "refuses the connection"},
		{name: "unknown", change: func(*bgp.Peer) {}, fails: "as its neighbour"},
		{name: "wrong-asn", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.PeerASN = 64999 }, fails: "(bad peer AS): the router's ASN is 64512"},
		{name: "asn-not-ours", frr: "neighbor NODE remote-as 65001", change: func(p *bgp.Peer) { p.LocalASN = 65002 }, fails: "the router sent NOTIFICATION 2/2 (bad peer AS)"},
		{name: "listening", frr: "neighbor NODE remote-as 65001\nneighbor NODE port 1790\nno neighbor NODE passive\nneighbor NODE update-source 192.0.2.51",
			change: func(p *bgp.Peer) { p.Passive, p.Address = true, netip.MustParseAddr("192.0.2.51") }},
		{name: "listening-password", frr: "neighbor NODE remote-as 65001\nneighbor NODE port 1790\nno neighbor NODE passive\nneighbor NODE update-source 192.0.2.52\nneighbor NODE password Correct",
			change: func(p *bgp.Peer) {
				p.Passive, p.Password, p.Address = true, "Correct", netip.MustParseAddr("192.0.2.52")
			}},
		{name: "listening-ipv6-gtsm", source: "2001:db8:1::203",
			frr:    "neighbor NODE remote-as 65001\nneighbor NODE port 1790\nno neighbor NODE passive\nneighbor NODE ttl-security hops 1",
			change: func(p *bgp.Peer) { p.Passive, p.TTLSecurity = true, 1 }},
	}

	// A connection that the router makes is known by the router's address.
	addAddress(t, "frr", "192.0.2.51")
	addAddress(t, "frr", "192.0.2.52")
	config := "router bgp 64512\n bgp router-id 192.0.2.1\n no bgp ebgp-requires-policy\n"
	families := ""
	for i := range cases {
		c := &cases[i]
		if c.source == "" {
			c.source = fmt.Sprintf("192.0.2.%d", 101+i)
		}
		if c.source != node6.String() {
			addAddress(t, "node", c.source)
		}
		if c.frr != "" {
			lines := strings.Split(c.frr, "\n")
			lines = append(lines[:1], append([]string{"neighbor NODE passive", "neighbor NODE timers connect 1"}, lines[1:]...)...)
			config += strings.ReplaceAll(" "+strings.Join(lines, "\n ")+"\n", "NODE", c.source)
			families += "  neighbor " + c.source + " activate\n"
		}
	}
	config += " address-family ipv4 unicast\n" + families + " exit-address-family\n address-family ipv6 unicast\n" + families
	f := frr(t, "frr", config)

	s := speak(t)
	s.desire(func(d *bgp.Desired) {
		d.ListenPort = 1790
		for i := range cases {
			c := &cases[i]
			p := peer(c.name, addr4("frr"))
			p.Source = netip.MustParseAddr(c.source)
			if p.Source.Is6() {
				p.Address = addr6("frr")
			}
			if c.change != nil {
				c.change(&p)
			}
			d.Peers = append(d.Peers, p)
			d.Routes = append(d.Routes,
				route(fmt.Sprintf("203.0.113.%d/32", i), bgp.Attributes{}, c.name), route(fmt.Sprintf("2001:db8:f::%x/128", i), bgp.Attributes{}, c.name))
		}
		sortDesired(d)
	})
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.fails != "" {
				eventually(t, "the right error", func() error {
					if one := s.session(c.name); one.State == bgp.Established || !strings.Contains(one.LastError, c.fails) || strings.Contains(one.LastError, "wrong-secret") {
						return fmt.Errorf("it is %v: %q", one.State, one.LastError)
					}
					return nil
				})
				return
			}
			eventually(t, "a session", func() error {
				if one := s.session(c.name); one.State != bgp.Established {
					return fmt.Errorf("it is %v: %s", one.State, one.LastError)
				}
				return nil
			})
			for _, prefix := range []string{fmt.Sprintf("203.0.113.%d/32", i), fmt.Sprintf("2001:db8:f::%x/128", i)} {
				shows(t, f, prefix, func(p router.Path) bool { return len(p.NextHops) > 0 })
			}
			n := neighborOf(t, f, c.source)
			if n.RouterID != addr4("node").String() {
				t.Errorf("FRR takes the node for %s", n.RouterID)
			}
			if one := s.session(c.name); one.PeerASN != 64512 || one.Announced != 2 || one.Local.WithZone("").String() != c.source {
				t.Errorf("the session: %+v", one)
			}
			if c.check != nil {
				c.check(t, n)
			}
		})
	}
	t.Run("next hops", func(t *testing.T) {
		for prefix, want := range map[string]string{
			"203.0.113.0/32": addr4("node").String(), "2001:db8:f::/128": "2001:db8:1::201", // over IPv6
			"203.0.113.1/32": node6.String(), "2001:db8:f::1/128": node6.String(), // over a link-local address
			"203.0.113.2/32": "192.0.2.103", "2001:db8:f::2/128": addr6("node").String(), // over IPv4
		} {
			shows(t, f, prefix, func(p router.Path) bool {
				for _, hop := range p.NextHops {
					if hop.String() == want {
						return true
					}
				}
				return false
			})
		}
	})
}
