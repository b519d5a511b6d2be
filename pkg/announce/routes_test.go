package announce

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// bgpAd returns an advertisement of every address of the pool, to all peers, from every node.
func bgpAd(name string, change func(*config.BGPAdvertisement)) *config.BGPAdvertisement {
	ad := &config.BGPAdvertisement{Name: name, Pools: []string{"other", "pool"}, Length4: 32, Length6: 128}
	if change != nil {
		change(ad)
	}
	return ad
}

func standard(a, b uint32) bgp.Community { return bgp.Community{A: a, B: b} }

// told writes contributions down, one per line.
func told(all []Contribution) string {
	var lines []string
	for _, c := range all {
		line := c.Prefix.String() + " to " + strings.Join(c.Peers, ",")
		if len(c.Attributes.Communities) > 0 {
			line += " with"
			for _, community := range c.Attributes.Communities {
				line += " " + community.String()
			}
		}
		if len(c.LeftOut) > 0 {
			line += " but not " + strings.Join(c.LeftOut, ",")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestRoutes(t *testing.T) {
	here := []string{"node-a"}
	one := []string{"tor1"}
	two := []string{"tor1", "tor2"}
	everything := []*config.BGPAdvertisement{bgpAd("all", nil)}
	web := labels.Set{"app": "web"}

	for name, tc := range map[string]struct {
		svc    Service
		addr   string // default 10.20.30.1
		ads    []*config.BGPAdvertisement
		node   Node
		peers  []string
		want   string
		reason Reason
	}{
		"IPv6": {
			svc: Service{Serving: here}, addr: "2001:db8::1", ads: everything, peers: one, want: "2001:db8::1/128 to tor1"},
		"the node's network is unavailable": {
			svc: Service{Serving: here}, ads: everything, peers: one, node: Node{NetworkUnavailable: true, Excluded: true}, reason: NetworkUnavailable},
		"whether the speaker is live or leaving, and where it can do layer 2, is for others to ask": {
			svc: Service{Serving: here}, ads: everything, peers: one, node: Node{Leaving: true, Interfaces: []string{}}, want: "10.20.30.1/32 to tor1"},
		"communities of overlapping advertisements are united": {
			svc: Service{Serving: here}, peers: two, ads: []*config.BGPAdvertisement{
				bgpAd("b", func(ad *config.BGPAdvertisement) {
					ad.Attributes.Communities = []bgp.Community{standard(2, 2), standard(3, 3)}
				}),
				bgpAd("a", func(ad *config.BGPAdvertisement) {
					ad.Attributes.Communities, ad.Peers = []bgp.Community{standard(1, 1), standard(3, 3)}, []string{"tor2"}
				}),
			},
			want: "10.20.30.1/32 to tor1 with 2:2 3:3\n10.20.30.1/32 to tor2 with 1:1 2:2 3:3"},
		"two advertisements that come to the same": {
			svc: Service{Serving: here}, peers: two, ads: []*config.BGPAdvertisement{
				bgpAd("a", func(ad *config.BGPAdvertisement) { ad.Peers = one }), bgpAd("b", nil)},
			want: "10.20.30.1/32 to tor1,tor2"},
		"the pool is not advertised": {
			svc: Service{Serving: here}, peers: one, reason: NoAdvertisement,
			ads: []*config.BGPAdvertisement{bgpAd("other", func(ad *config.BGPAdvertisement) { ad.Pools = []string{"other"} })}},
		"the Service is not selected": {
			svc: Service{Serving: here, Labels: web}, peers: one, reason: NoAdvertisement,
			ads: []*config.BGPAdvertisement{bgpAd("db", func(ad *config.BGPAdvertisement) { ad.Services = selector(t, "app=db") })}},
		"the Service is selected by one of two selectors": {
			svc: Service{Serving: here, Labels: web}, peers: one, want: "10.20.30.1/32 to tor1",
			ads: []*config.BGPAdvertisement{bgpAd("both", func(ad *config.BGPAdvertisement) {
				ad.Services = slices.Concat(selector(t, "app=db"), selector(t, "app=web"))
			})}},
		"a shared address and Services told apart: routes are the address's, and so the union of what its Services want": {
			svc: Service{Serving: here, Labels: web, Shared: true}, peers: one, want: "10.20.30.1/32 to tor1",
			ads: []*config.BGPAdvertisement{bgpAd("web", func(ad *config.BGPAdvertisement) { ad.Services = selector(t, "app=web") })}},
		"no advertisement is for the node": {
			svc: Service{Serving: here}, peers: one, reason: NotSelected,
			ads: []*config.BGPAdvertisement{bgpAd("there", func(ad *config.BGPAdvertisement) { ad.Nodes = selector(t, "name=node-b") })}},
		"of two advertisements, that which comes closer gives the reason": {
			svc: Service{Serving: here}, peers: one, reason: NoPeer,
			ads: []*config.BGPAdvertisement{
				bgpAd("tor3", func(ad *config.BGPAdvertisement) { ad.Peers = []string{"tor3"} }),
				bgpAd("there", func(ad *config.BGPAdvertisement) { ad.Nodes = selector(t, "name=node-b") }),
			}},
	} {
		t.Run(name, func(t *testing.T) {
			node := tc.node
			node.Name, node.Labels = "node-a", labels.Set{"name": "node-a"}
			if tc.addr == "" {
				tc.addr = "10.20.30.1"
			}
			got, reason := Routes(tc.svc, netip.MustParseAddr(tc.addr), "pool", tc.ads, &node, tc.peers)
			if told(got) != tc.want || reason != tc.reason {
				t.Errorf("%q\n%s\nwant %q\n%s", reason, told(got), tc.reason, tc.want)
			}
		})
	}
}

// B4: every attribute that an advertisement has arrives.
func TestRoutesCarryTheAttributes(t *testing.T) {
	attributes := bgp.Attributes{LocalPref: 150, MED: 20, HasMED: true, Prepend: 2,
		Communities: []bgp.Community{standard(65000, 1), {Large: true, A: 65000, B: 1, C: 2}}}
	weighted := func(ad *config.BGPAdvertisement) { ad.Attributes, ad.WeightByEndpoints = attributes, true }
	of := func(svc Service, ads ...*config.BGPAdvertisement) bgp.Attributes {
		t.Helper()
		svc.Serving = []string{"node-a"}
		all, _ := Routes(svc, netip.MustParseAddr("10.0.0.1"), "pool", ads, &Node{Name: "node-a"}, []string{"tor"})
		if len(all) != 1 {
			t.Fatalf("%d contributions", len(all))
		}
		return all[0].Attributes
	}
	if diff := cmp.Diff(attributes, of(Service{LocalEndpoints: 3}, bgpAd("ad", weighted))); diff != "" {
		t.Errorf("policy Cluster: %s", diff)
	}
	want := attributes
	want.Bandwidth = 3 * 125_000
	local := Service{Local: true, LocalEndpoints: 3}
	if diff := cmp.Diff(want, of(local, bgpAd("ad", weighted))); diff != "" {
		t.Errorf("policy Local: %s", diff)
	}
	if diff := cmp.Diff(want, of(local, bgpAd("ad", weighted), bgpAd("same", weighted))); diff != "" {
		t.Errorf("two advertisements count the same endpoints: %s", diff)
	}
	overlaid := of(local, bgpAd("ad", weighted), bgpAd("plain", func(ad *config.BGPAdvertisement) { ad.Attributes.LocalPref = 150 }))
	want.Prepend = 0
	if diff := cmp.Diff(want, overlaid); diff != "" {
		t.Errorf("with another advertisement that says little: %s", diff)
	}
}

func TestMerge(t *testing.T) {
	for name, tc := range map[string]struct{ a, b, want bgp.Attributes }{
		"nothing":                 {bgp.Attributes{}, bgp.Attributes{}, bgp.Attributes{}},
		"highest localPref":       {bgp.Attributes{LocalPref: 150}, bgp.Attributes{LocalPref: 200}, bgp.Attributes{LocalPref: 200}},
		"localPref 0 is 100":      {bgp.Attributes{LocalPref: 50}, bgp.Attributes{}, bgp.Attributes{}},
		"lowest MED":              {bgp.Attributes{MED: 5, HasMED: true}, bgp.Attributes{MED: 3, HasMED: true}, bgp.Attributes{MED: 3, HasMED: true}},
		"MED 0 is one":            {bgp.Attributes{MED: 5, HasMED: true}, bgp.Attributes{HasMED: true}, bgp.Attributes{HasMED: true}},
		"no MED does not count":   {bgp.Attributes{MED: 5, HasMED: true}, bgp.Attributes{}, bgp.Attributes{MED: 5, HasMED: true}},
		"shortest path":           {bgp.Attributes{Prepend: 3}, bgp.Attributes{Prepend: 2}, bgp.Attributes{Prepend: 2}},
		"bandwidths are added up": {bgp.Attributes{Bandwidth: 3}, bgp.Attributes{Bandwidth: 2}, bgp.Attributes{Bandwidth: 5}},
		"communities are united": {
			bgp.Attributes{Communities: []bgp.Community{standard(1, 1), standard(3, 3)}},
			bgp.Attributes{Communities: []bgp.Community{standard(2, 2), standard(3, 3)}},
			bgp.Attributes{Communities: []bgp.Community{standard(1, 1), standard(2, 2), standard(3, 3)}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, got := range []bgp.Attributes{merge(tc.a, tc.b), merge(tc.b, tc.a)} {
				if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestGracefulShutdown(t *testing.T) {
	before := bgp.Attributes{LocalPref: 200, MED: 5, HasMED: true, Communities: []bgp.Community{standard(1, 1), {Large: true, A: 1}}}
	kept := slices.Clone(before.Communities)
	want := before
	want.LocalPref, want.Communities = 1, []bgp.Community{standard(1, 1), standard(65535, 0), {Large: true, A: 1}}
	for range 2 {
		got := GracefulShutdown(before)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if again := GracefulShutdown(got); !again.Equal(&want) {
			t.Errorf("a second time gives %+v", again)
		}
	}
	if !slices.Equal(before.Communities, kept) {
		t.Error("its argument was changed")
	}
}

// drawAttributes draws from so few that they often are equal or contradict each other.
func drawAttributes(t *rapid.T) bgp.Attributes {
	a := bgp.Attributes{
		LocalPref: rapid.SampledFrom([]uint32{0, 50, 100, 200}).Draw(t, "localPref"),
		HasMED:    rapid.Bool().Draw(t, "has MED"),
		Prepend:   rapid.Uint8Max(2).Draw(t, "prepend"),
	}
	if a.HasMED {
		a.MED = rapid.Uint32Max(2).Draw(t, "MED")
	}
	communities := []bgp.Community{standard(1, 1), standard(2, 2), bgp.GracefulShutdown, {Large: true, A: 1, B: 2, C: 3}}
	for _, c := range communities {
		if rapid.Bool().Draw(t, "community") {
			a.Communities = append(a.Communities, c)
		}
	}
	return a
}

func drawSubset(t *rapid.T, of []string, label string) []string {
	var some []string
	for _, s := range of {
		if rapid.Bool().Draw(t, label) {
			some = append(some, s)
		}
	}
	return some
}

// Whatever the advertisements are: no peer is told twice of a prefix, none that does not take part is told, each prefix has the address,
// and there is a reason exactly if there is nothing else.
func TestRoutesProperties(t *testing.T) {
	all := []string{"tor1", "tor2", "tor3"}
	rapid.Check(t, func(t *rapid.T) {
		addr := netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.1", "2001:db8::1"}).Draw(t, "address"))
		var ads []*config.BGPAdvertisement
		for range rapid.IntRange(0, 4).Draw(t, "advertisements") {
			ads = append(ads, &config.BGPAdvertisement{
				Pools: drawSubset(t, []string{"other", "pool"}, "pool"), Peers: drawSubset(t, all, "peer"),
				Length4: rapid.SampledFrom([]int{24, 32}).Draw(t, "length"), Length6: rapid.SampledFrom([]int{64, 128}).Draw(t, "length"),
				Attributes: drawAttributes(t), WeightByEndpoints: rapid.Bool().Draw(t, "weight"),
			})
		}
		peers := drawSubset(t, all, "session")
		svc := Service{Local: rapid.Bool().Draw(t, "local"), Serving: drawSubset(t, []string{"node-a", "node-b"}, "serving"), LocalEndpoints: 2}
		got, reason := Routes(svc, addr, "pool", ads, &Node{Name: "node-a"}, peers)
		if (len(got) == 0) != (reason != "") {
			t.Fatalf("%q with %s", reason, told(got))
		}
		seen := map[string]bool{}
		for i, c := range got {
			if !c.Prefix.Contains(addr) || c.Prefix != c.Prefix.Masked() || len(c.Peers) == 0 || !slices.IsSorted(c.Peers) ||
				!slices.IsSortedFunc(c.Attributes.Communities, bgp.Community.Compare) || i > 0 && got[i-1].Prefix.Compare(c.Prefix) > 0 {
				t.Fatalf("unsorted, or of something else: %s", told(got))
			}
			for _, p := range c.Peers {
				if key := p + c.Prefix.String(); seen[key] || !slices.Contains(peers, p) {
					t.Fatalf("%s is told twice or should not be: %s", p, told(got))
				} else {
					seen[key] = true
				}
			}
		}
	})
}
