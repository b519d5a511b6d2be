package announce

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/golden"
)

func TestPleas(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	node := func(name string, change func(*Node)) Node {
		n := Node{Name: name, Labels: labels.Set{"name": name}, Live: true, Interfaces: []string{"eth0"}}
		if change != nil {
			change(&n)
		}
		return n
	}
	rack := func(name string) Node { return node(name, func(n *Node) { n.Labels["rack"] = "a" }) }
	layer2 := func(change func(*config.L2Advertisement)) []*config.L2Advertisement {
		ad := &config.L2Advertisement{Name: "lan", Pools: []string{"prod"}}
		change(ad)
		return []*config.L2Advertisement{ad}
	}
	routers := []*config.BGPAdvertisement{{Name: "routers", Pools: []string{"prod"}, Length4: 32, Length6: 128}}
	peers := []*config.BGPPeer{{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), Nodes: selector(t, "rack=a")}}
	serving := Service{Serving: []string{"node-a"}, Labels: labels.Set{"app": "web"}}
	local, shared := serving, serving
	local.Local, shared.Shared = true, true

	var pleas strings.Builder
	for _, tc := range []struct {
		name   string
		svc    Service
		field  Field
		addrs  []netip.Addr
		reason Reason
	}{
		{"nothing advertises the pool", serving, Field{Nodes: []Node{node("node-a", nil)}}, []netip.Addr{v4, v6}, NoAdvertisement},
		{"no endpoint serves", Service{}, Field{L2Advertisements: layer2(func(*config.L2Advertisement) {})}, []netip.Addr{v4}, NoServingEndpoint},
		{"no endpoint serves, and routers would be told", Service{}, Field{BGPAdvertisements: routers}, []netip.Addr{v4}, NoServingEndpoint},
		{"a shared address and Services told apart", shared,
			Field{L2Advertisements: layer2(func(ad *config.L2Advertisement) { ad.Services = selector(t, "app=web") })}, []netip.Addr{v4}, SharedWithServiceSelector},
		{"no node is selected", serving, Field{
			Nodes:            []Node{node("node-a", nil), node("node-b", nil), node("node-c", nil), node("node-d", nil), node("node-e", nil), node("node-f", func(n *Node) { n.Live = false })},
			L2Advertisements: layer2(func(ad *config.L2Advertisement) { ad.Nodes = selector(t, "rack=b") }),
		}, []netip.Addr{v4}, NoEligibleNode},
		{"each node for a reason of its own", local, Field{
			Nodes: []Node{
				node("node-a", func(n *Node) { n.Interfaces = []string{"eth1"} }), node("node-b", nil), node("node-c", func(n *Node) { n.Excluded = true }),
				node("node-d", func(n *Node) { n.NetworkUnavailable = true }), node("node-e", func(n *Node) { n.Leaving = true }),
			},
			L2Advertisements: layer2(func(ad *config.L2Advertisement) { ad.Interfaces = []string{"eth0"} }),
		}, []netip.Addr{v4}, NoEligibleNode},
		{"routers of another family", serving, Field{
			Nodes: []Node{node("node-a", nil), rack("node-b")}, BGPAdvertisements: routers, BGPPeers: peers,
		}, []netip.Addr{v6}, NoEligibleNode},
		{"neither protocol", local, Field{
			Nodes:            []Node{node("node-a", nil), rack("node-b")},
			L2Advertisements: layer2(func(ad *config.L2Advertisement) { ad.Nodes = selector(t, "rack=a") }), BGPAdvertisements: routers, BGPPeers: peers,
		}, []netip.Addr{v4}, NoEligibleNode},
		{"each family for a reason of its own", serving, Field{
			Nodes: []Node{node("node-a", func(n *Node) { n.Labels["rack"], n.Excluded = "a", true })}, BGPAdvertisements: routers, BGPPeers: peers,
		}, []netip.Addr{v4, v6}, NoEligibleNode},
		{"shared, and no router", shared, Field{
			Nodes:            []Node{node("node-a", nil)},
			L2Advertisements: layer2(func(ad *config.L2Advertisement) { ad.Services = selector(t, "app=web") }), BGPAdvertisements: routers, BGPPeers: peers,
		}, []netip.Addr{v4}, NoEligibleNode},
		{"no node is known", serving, Field{L2Advertisements: layer2(func(*config.L2Advertisement) {})}, []netip.Addr{v4}, NoEligibleNode},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if node, reason := tc.field.Announcer(tc.svc, tc.addrs[0], "prod"); node != "" || reason != tc.reason {
				t.Errorf("%q may announce, or nobody because of %s, want %s", node, reason, tc.reason)
			}
			plea := tc.field.Plea("shop/web", tc.svc, tc.addrs, []string{"prod", "prod"}[:len(tc.addrs)])
			if strings.Contains(plea, "()") {
				t.Errorf("no words for a reason: %s", plea)
			}
			pleas.WriteString("# " + tc.name + "\n" + string(tc.reason) + ": " + plea + "\n\n")
		})
	}
	golden.Compare(t, "testdata/pleas.txt", pleas.String())
}

// TestAnnouncer: one protocol and one node are enough.
func TestAnnouncer(t *testing.T) {
	svc := Service{Serving: []string{"node-a"}}
	addr := netip.MustParseAddr("192.0.2.10")
	dead, live := Node{Name: "node-a"}, Node{Name: "node-b", Live: true, Interfaces: []string{}}
	field := Field{
		Nodes:             []Node{dead, live},
		BGPAdvertisements: []*config.BGPAdvertisement{{Name: "routers", Pools: []string{"prod"}, Length4: 32, Length6: 128}},
		BGPPeers:          []*config.BGPPeer{{Name: "unnumbered", Interface: "eth7"}},
	}
	lan := []*config.L2Advertisement{{Name: "lan", Pools: []string{"prod"}}}
	for name, ads := range map[string][]*config.L2Advertisement{"BGP alone": nil, "BGP, where no node has an interface for the other": lan} {
		field.L2Advertisements = ads
		if node, reason := field.Announcer(svc, addr, "prod"); node != "node-b" || reason != "" {
			t.Errorf("%s: %q %q", name, node, reason)
		}
	}
	field.Nodes[1].Interfaces, field.BGPPeers, field.L2Advertisements = []string{"eth0"}, nil, lan
	if node, reason := field.Announcer(svc, addr, "prod"); node != "node-b" || reason != "" {
		t.Errorf("the local network alone: %q %q", node, reason)
	}
}
