package announce

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

func contribution(prefix string, attributes bgp.Attributes, peers ...string) Contribution {
	return Contribution{Prefix: netip.MustParsePrefix(prefix), Peers: peers, Attributes: attributes}
}

func routeKey(service, addr string) RouteKey {
	return RouteKey{Service: service, Addr: netip.MustParseAddr(addr)}
}

// listed writes routes down, one line for each path.
func listed(routes []bgp.Route) string {
	var lines []string
	for _, r := range routes {
		for _, p := range r.Paths {
			line := fmt.Sprintf("%s to %s: %d", r.Prefix, strings.Join(p.Peers, ","), p.Attributes.LocalPref)
			for _, c := range p.Attributes.Communities {
				line += " " + c.String()
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// B6 and B4: what Services come and go with.
func TestRouteTable(t *testing.T) {
	plain := bgp.Attributes{}
	table := NewRouteTable()
	for i, step := range []struct {
		key     RouteKey
		set     []Contribution
		changed bool
		want    string
	}{
		{routeKey("a", "10.0.0.1"), []Contribution{contribution("10.0.0.1/32", plain, "tor")}, true, "10.0.0.1/32 to tor: 0"},
		{routeKey("a", "10.0.0.1"), []Contribution{contribution("10.0.0.1/32", plain, "tor")}, false, "10.0.0.1/32 to tor: 0"},
		// One without an address yet.
		{routeKey("b", "10.0.0.2"), nil, false, "10.0.0.1/32 to tor: 0"},
		{routeKey("b", "10.0.0.2"), []Contribution{contribution("10.0.0.2/32", plain, "tor")}, true, "10.0.0.1/32 to tor: 0\n10.0.0.2/32 to tor: 0"},
		{routeKey("b", "10.0.0.2"), nil, true, "10.0.0.1/32 to tor: 0"},
		// One that shares the address.
		{routeKey("b", "10.0.0.1"), []Contribution{contribution("10.0.0.1/32", plain, "tor")}, false, "10.0.0.1/32 to tor: 0"},
		{routeKey("a", "10.0.0.1"), nil, false, "10.0.0.1/32 to tor: 0"},
		{routeKey("b", "10.0.0.1"), nil, true, ""},
		// Two in one aggregate that differ.
		{routeKey("a", "10.0.0.1"), []Contribution{
			contribution("10.0.0.0/24", bgp.Attributes{LocalPref: 200, Communities: []bgp.Community{standard(2, 2)}}, "tor1", "tor2")}, true,
			"10.0.0.0/24 to tor1,tor2: 200 2:2"},
		{routeKey("b", "10.0.0.2"), []Contribution{
			contribution("10.0.0.0/24", bgp.Attributes{Communities: []bgp.Community{standard(1, 1)}}, "tor2", "tor3")}, true,
			"10.0.0.0/24 to tor1: 200 2:2\n10.0.0.0/24 to tor2: 200 1:1 2:2\n10.0.0.0/24 to tor3: 0 1:1"},
		{routeKey("a", "10.0.0.1"), nil, true, "10.0.0.0/24 to tor2,tor3: 0 1:1"},
		// An aggregate stays while one of its addresses does.
		{routeKey("c", "10.0.0.3"), []Contribution{
			contribution("10.0.0.0/24", GracefulShutdown(bgp.Attributes{}), "tor2", "tor3", "tor4")}, true,
			"10.0.0.0/24 to tor2,tor3: 0 1:1\n10.0.0.0/24 to tor4: 1 graceful-shutdown"},
		{routeKey("b", "10.0.0.2"), nil, true, "10.0.0.0/24 to tor2,tor3,tor4: 1 graceful-shutdown"},
		{routeKey("c", "10.0.0.3"), []Contribution{
			contribution("2001:db8::/64", plain, "tor4"), contribution("2001:db8::3/128", plain, "tor4")}, true,
			"2001:db8::/64 to tor4: 0\n2001:db8::3/128 to tor4: 0"},
	} {
		table.Set(step.key, step.set)
		if table.Changed() != step.changed {
			t.Errorf("step %d: changed: %v", i, table.Changed())
		}
		if got := listed(table.Routes()); got != step.want {
			t.Errorf("step %d:\n%s\nwant\n%s", i, got, step.want)
		}
		if table.Changed() {
			t.Errorf("step %d: changed after Routes", i)
		}
	}
}

func TestRouteTableAddsBandwidthsUp(t *testing.T) {
	table := NewRouteTable()
	bandwidth := func() uint64 { return table.Routes()[0].Paths[0].Attributes.Bandwidth }
	table.Set(routeKey("a", "10.0.0.1"), []Contribution{contribution("10.0.0.0/24", bgp.Attributes{Bandwidth: 3}, "tor")})
	table.Set(routeKey("b", "10.0.0.2"), []Contribution{contribution("10.0.0.0/24", bgp.Attributes{Bandwidth: 4}, "tor")})
	if got := bandwidth(); got != 7 {
		t.Errorf("3 and 4 are %d", got)
	}
	table.Set(routeKey("b", "10.0.0.2"), []Contribution{contribution("10.0.0.0/24", bgp.Attributes{Bandwidth: 1}, "tor")})
	if got := bandwidth(); got != 4 {
		t.Errorf("3 and 1 are %d", got)
	}
	table.Set(routeKey("c", "10.0.0.3"), []Contribution{contribution("10.0.0.0/24", bgp.Attributes{Bandwidth: 1, Prepend: 1}, "tor")})
	if got := bandwidth(); got != 5 {
		t.Errorf("3, 1 and 1 are %d", got)
	}
	table.Set(routeKey("a", "10.0.0.1"), nil)
	if got := bandwidth(); got != 2 {
		t.Errorf("1 and 1 are %d", got)
	}
}

// What the engine was given is not written to, and what has not changed is the same in memory.
func TestRoutesSharePaths(t *testing.T) {
	table := NewRouteTable()
	const n = 500
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	set := func(i int, prepend uint8) {
		a := addr(i)
		table.Set(RouteKey{Service: "web", Addr: a}, []Contribution{{
			Prefix: netip.PrefixFrom(a, 32), Peers: []string{"tor1", "tor2"}, Attributes: bgp.Attributes{Prepend: prepend},
		}})
	}
	for i := range n {
		set(i, 1)
	}
	before := table.Routes()
	kept := slices.Clone(before)
	for _, r := range before {
		if &r.Paths[0] != &before[0].Paths[0] {
			t.Fatal("equal paths are kept twice")
		}
	}
	// Many different attributes come and go, so that what nobody uses is forgotten.
	for i := range n {
		set(7, uint8(i))
		table.Routes()
	}
	set(7, 2)
	after := table.Routes()
	if !slices.EqualFunc(before, kept, func(a, b bgp.Route) bool { return a.Prefix == b.Prefix && &a.Paths[0] == &b.Paths[0] }) {
		t.Error("what was returned before has changed")
	}
	for i := range after {
		if same := &after[i].Paths[0] == &before[i].Paths[0]; same == (i == 7) {
			t.Errorf("route %d: the same in memory: %v", i, same)
		}
	}
	if len(table.known.byPaths) > 2*64 {
		t.Errorf("%d paths are kept for 2", len(table.known.byPaths))
	}
}

// Set looks at what it is given, and Routes sorts nothing but what changed: with ten thousand addresses, one that changes costs a few
// allocations.
func TestOneOfTenThousand(t *testing.T) {
	table := NewRouteTable()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	attributes := bgp.Attributes{Communities: []bgp.Community{standard(1, 1)}}
	own := func(i int, prepend uint8) []Contribution {
		with := attributes
		with.Prepend = prepend
		return []Contribution{
			{Prefix: netip.PrefixFrom(addr(i), 32), Peers: []string{"tor1", "tor2"}, Attributes: with},
			{Prefix: netip.MustParsePrefix("10.0.0.0/16"), Peers: []string{"tor1", "tor2"}, Attributes: attributes},
		}
	}
	for i := range 10_000 {
		table.Set(RouteKey{Service: "web", Addr: addr(i)}, own(i, 0))
	}
	if got := len(table.Routes()); got != 10_001 {
		t.Fatalf("%d routes", got)
	}
	prepend := uint8(0)
	allocations := testing.AllocsPerRun(20, func() {
		prepend ^= 1
		table.Set(RouteKey{Service: "web", Addr: addr(5000)}, own(5000, prepend))
		if len(table.dirty) != 1 {
			t.Fatalf("%d prefixes are dirty", len(table.dirty))
		}
		table.Routes()
	})
	if allocations > 100 {
		t.Errorf("%.0f allocations for one address", allocations)
	}
}

// model merges in the plainest way there is.
func model(held map[RouteKey][]Contribution) []bgp.Route {
	type target struct {
		prefix netip.Prefix
		peer   string
	}
	byTarget := map[target][]bgp.Attributes{}
	for _, contributions := range held {
		for _, c := range contributions {
			for _, p := range c.Peers {
				byTarget[target{c.Prefix, p}] = append(byTarget[target{c.Prefix, p}], c.Attributes)
			}
		}
	}
	var targets []target
	for of := range byTarget {
		targets = append(targets, of)
	}
	slices.SortFunc(targets, func(a, b target) int {
		if order := a.prefix.Compare(b.prefix); order != 0 {
			return order
		}
		return strings.Compare(a.peer, b.peer)
	})
	var routes []bgp.Route
	for _, of := range targets {
		all := byTarget[of]
		leaving := func(a bgp.Attributes) bool { return slices.Contains(a.Communities, bgp.GracefulShutdown) }
		if slices.ContainsFunc(all, func(a bgp.Attributes) bool { return !leaving(a) }) {
			all = slices.DeleteFunc(all, leaving)
		}
		merged := all[0]
		for _, a := range all[1:] {
			merged = merge(merged, a)
		}
		if len(routes) == 0 || routes[len(routes)-1].Prefix != of.prefix {
			routes = append(routes, bgp.Route{Prefix: of.prefix})
		}
		r := &routes[len(routes)-1]
		i := slices.IndexFunc(r.Paths, func(p bgp.Path) bool { return p.Attributes.Equal(&merged) })
		if i < 0 {
			i, r.Paths = len(r.Paths), append(r.Paths, bgp.Path{Attributes: &merged})
		}
		r.Paths[i].Peers = append(r.Paths[i].Peers, of.peer)
	}
	return routes
}

// Whatever is set, in whatever order and with Routes called whenever: the table is what the contributions in it come to, so that a prefix
// is there exactly if something contributes to it, and removing a key leaves what would be without it.
func TestRouteTableProperties(t *testing.T) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("2001:db8::/64")}
	rapid.Check(t, func(t *rapid.T) {
		table, held := NewRouteTable(), map[RouteKey][]Contribution{}
		check := func(table *RouteTable) {
			want, got := model(held), table.Routes()
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatal(diff)
			}
			shared := map[string]*bgp.Attributes{}
			for _, r := range got {
				for _, p := range r.Paths {
					key := string(attributesKey(nil, p.Attributes))
					if shared[key] != nil && shared[key] != p.Attributes {
						t.Fatal("equal attributes are kept twice")
					}
					shared[key] = p.Attributes
				}
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			key := routeKey(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "service"), "10.0.0.1")
			var contributions []Contribution
			for _, p := range prefixes {
				first := drawSubset(t, []string{"tor1", "tor2"}, "peer")
				for _, peers := range [][]string{first, drawSubset(t, []string{"tor3"}, "peer")} {
					if len(peers) == 0 {
						continue
					}
					c := Contribution{Prefix: p, Peers: peers, Attributes: drawAttributes(t)}
					c.Attributes.Bandwidth = rapid.Uint64Max(2).Draw(t, "bandwidth")
					contributions = append(contributions, c)
				}
			}
			table.Set(key, contributions)
			if held[key] = contributions; len(contributions) == 0 {
				delete(held, key)
			}
			if rapid.Bool().Draw(t, "look") {
				check(table)
			}
		}
		check(table)
		// The same in one go, in the order of a map.
		other := NewRouteTable()
		for key, contributions := range held {
			other.Set(key, contributions)
		}
		check(other)
		for key := range held {
			table.Set(key, nil)
			delete(held, key)
			check(table)
		}
		if len(table.entries) > 0 || len(table.held) > 0 {
			t.Fatal("an empty table keeps something")
		}
	})
}
