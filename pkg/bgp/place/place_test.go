package place

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var node = []string{
	"link set eth0 addrgenmode none", "address flush dev eth0", "address add fe80::a/64 dev eth0",
	"address add 192.0.2.1/24 dev eth0",
	"address add 192.0.2.100/32 dev eth0",
	"address add 2001:db8::ffff:0:0:100/128 dev eth0",
	"address add 2001:db8::1/64 dev eth0",
	"address add 2001:db8::99/64 dev eth0 preferred_lft 0",
	"address add 198.51.100.1/24 dev eth1",
	"route add 203.0.113.0/24 via 192.0.2.254",
	"route add 203.0.113.128/25 via 198.51.100.254 src 192.0.2.1",
	"route add blackhole 10.0.0.0/8",
	"route add 2001:db8:ff::/48 via fe80::1 dev eth0",
}

func TestLocate(t *testing.T) {
	tests := map[string]struct {
		peer, device string
		want         [4]string // interface, source, next hops
		routed       bool
		err          string
	}{
		"on the LAN":                {peer: "192.0.2.254", want: [4]string{"eth0", "192.0.2.1", "192.0.2.1", "2001:db8::1"}},
		"on the LAN, IPv6":          {peer: "2001:db8::3", want: [4]string{"eth0", "2001:db8::1", "192.0.2.1", "2001:db8::1"}},
		"mapped":                    {peer: "::ffff:192.0.2.254", want: [4]string{"eth0", "192.0.2.1", "192.0.2.1", "2001:db8::1"}},
		"behind a router":           {peer: "203.0.113.1", want: [4]string{"eth0", "192.0.2.1", "192.0.2.1", "2001:db8::1"}, routed: true},
		"behind a router, IPv6":     {peer: "2001:db8:ff::1", want: [4]string{"eth0", "2001:db8::1", "192.0.2.1", "2001:db8::1"}, routed: true},
		"with the route's source":   {peer: "203.0.113.200", want: [4]string{"eth1", "192.0.2.1", "192.0.2.1", ""}, routed: true},
		"interface without IPv6":    {peer: "198.51.100.254", want: [4]string{"eth1", "198.51.100.1", "198.51.100.1", ""}},
		"link-local":                {peer: "fe80::1%eth0", want: [4]string{"eth0", "fe80::a%eth0", "192.0.2.1", "2001:db8::1"}},
		"link-local with device":    {peer: "fe80::1", device: "eth0", want: [4]string{"eth0", "fe80::a%eth0", "192.0.2.1", "2001:db8::1"}},
		"bound to an interface":     {peer: "192.0.2.254", device: "eth0", want: [4]string{"eth0", "192.0.2.1", "192.0.2.1", "2001:db8::1"}},
		"bound to a missing one":    {peer: "192.0.2.254", device: "eth7", err: "no interface or VRF eth7"},
		"zone of a missing one":     {peer: "fe80::1%eth7", err: "no interface or VRF eth7"},
		"link-local without a zone": {peer: "fe80::1", err: "without naming an interface"},
		"itself":                    {peer: "192.0.2.1", err: "address of this node itself"},
		"itself, IPv6":              {peer: "2001:db8::1", err: "address of this node itself"},
		"without a route":           {peer: "172.16.0.1", err: "no route to peer 172.16.0.1: give the node"},
		"without a route, IPv6":     {peer: "2001:db8:1::1", err: "no route to peer 2001:db8:1::1: give the node"},
		"into a black hole":         {peer: "10.0.0.1", err: "do not lead to peer 10.0.0.1"},
	}
	inNode(t, node, func(t *testing.T) {
		for name, test := range tests {
			got, err := Locate(netip.MustParseAddr(test.peer), test.device)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%s: %+v, %v; want an error that says %q", name, got, err, test.err)
				}
				continue
			}
			want := Place{Interface: test.want[0], Source: netip.MustParseAddr(test.want[1]), Routed: test.routed}
			want.NextHop4, _ = netip.ParseAddr(test.want[2])
			want.NextHop6, _ = netip.ParseAddr(test.want[3])
			if err != nil || got != want {
				t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
			}
		}
	})
}

func TestOwn(t *testing.T) {
	inNode(t, node, func(t *testing.T) {
		own, err := Own()
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"127.0.0.1", "::1", "192.0.2.1", "192.0.2.100", "2001:db8::1", "198.51.100.1", "fe80::a%eth0"} {
			if !slices.Contains(own, netip.MustParseAddr(want)) {
				t.Errorf("%s is missing in %v", want, own)
			}
		}
	})
}

func TestGateways(t *testing.T) {
	tests := map[string]struct {
		routes []string
		v4, v6 string
	}{
		"none":            {},
		"one of each":     {routes: []string{"route add default via 192.0.2.254", "route add default via 2001:db8::254"}, v4: "192.0.2.254", v6: "2001:db8::254"},
		"link-local":      {routes: []string{"route add default via fe80::1 dev eth0"}, v6: "fe80::1%eth0"},
		"by metric":       {routes: []string{"route add default via 192.0.2.253 metric 200", "route add default via 192.0.2.254 metric 100", "route add default via 198.51.100.254 metric 300"}, v4: "192.0.2.254"},
		"over two":        {routes: []string{"route add default nexthop via 192.0.2.254 nexthop via 198.51.100.254", "-6 route add default nexthop via 2001:db8::254 nexthop via 2001:db8::253"}, v4: "192.0.2.254", v6: "2001:db8::254"},
		"without gateway": {routes: []string{"route add default dev eth0"}},
		"unreachable":     {routes: []string{"route add unreachable default metric 5", "route add default via 192.0.2.254 metric 10"}, v4: "192.0.2.254"},
		"other tables":    {routes: []string{"route add default via 192.0.2.254 table 100"}},
		"without carrier": {routes: []string{"route add default via 198.51.100.254 metric 1", "route add default via 192.0.2.254 metric 2", "link set far1 down"}, v4: "192.0.2.254"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inNode(t, node, func(t *testing.T) {
				for _, r := range test.routes {
					if err := ip(r); err != nil {
						t.Error(err)
					}
				}
				v4, v6, err := Gateways()
				for deadline := time.Now().Add(patience); name == "without carrier" && v4.String() != test.v4 && time.Now().Before(deadline); {
					time.Sleep(5 * time.Millisecond) // the kernel notices a moment later
					v4, v6, err = Gateways()
				}
				want4, _ := netip.ParseAddr(test.v4)
				want6, _ := netip.ParseAddr(test.v6)
				if err != nil || v4 != want4 || v6 != want6 {
					t.Errorf("%v and %v, %v; want %v and %v", v4, v6, err, want4, want6)
				}
			})
		})
	}
}

func TestWatch(t *testing.T) {
	inNode(t, node, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		changed, err := Watch(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		for _, c := range []string{
			"address add 192.0.2.7/24 dev eth0", "address del 192.0.2.7/24 dev eth0", "address add 2001:db8::7/64 dev eth0",
			"route add 172.16.0.0/12 via 192.0.2.254", "route add 2001:db8:7::/48 via 2001:db8::254", "link set eth1 down",
		} {
			settle(changed)
			if err := ip(c); err != nil {
				t.Error(err)
			}
			select {
			case <-changed:
			case <-time.After(patience):
				t.Errorf("ip %s is not noticed", c)
			}
		}
	})
}

// settle takes what earlier changes brought, until nothing comes for a moment.
func settle(changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}
