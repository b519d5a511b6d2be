package announce

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

func TestSessionsOf(t *testing.T) {
	peer := func(name string, change func(*config.BGPPeer)) *config.BGPPeer {
		p := &config.BGPPeer{Name: name}
		change(p)
		return p
	}
	at := func(name, address string) *config.BGPPeer {
		return peer(name, func(p *config.BGPPeer) { p.Address = netip.MustParseAddr(address) })
	}
	on := func(nodes string, p *config.BGPPeer) *config.BGPPeer {
		p.Nodes = append(p.Nodes, selector(t, nodes)...)
		return p
	}
	as := func(id string, p *config.BGPPeer) *config.BGPPeer {
		p.RouterID = netip.MustParseAddr(id)
		return p
	}
	over := func(name, device string) *config.BGPPeer {
		return peer(name, func(p *config.BGPPeer) { p.Interface = device })
	}
	passive := func(p *config.BGPPeer) *config.BGPPeer {
		p.Passive = true
		return p
	}
	gateway := peer("gw", func(p *config.BGPPeer) { p.Gateway = "IPv4" })
	annotated := peer("noted", func(p *config.BGPPeer) { p.Annotation = "example.com/tor" })
	found := func(pairs ...string) map[string]netip.Addr {
		all := map[string]netip.Addr{}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = netip.MustParseAddr(pairs[i+1])
		}
		return all
	}

	for name, tc := range map[string]struct {
		peers   []*config.BGPPeer
		site    Site
		mine    string
		refused map[string]Reason
		says    string // part of the message of the one that is refused
	}{
		"B5 two peers":                             {peers: []*config.BGPPeer{at("a", "192.0.2.1"), at("b", "192.0.2.2")}, mine: "a b"},
		"B8 nodeSelectors do not match":            {peers: []*config.BGPPeer{on("rack=2", at("a", "192.0.2.1"))}},
		"B8 one of two nodeSelectors matches":      {peers: []*config.BGPPeer{on("rack=2", on("rack=1", at("a", "192.0.2.1")))}, mine: "a"},
		"G12 one address twice":                    {peers: []*config.BGPPeer{at("a", "192.0.2.1"), at("b", "192.0.2.1")}, mine: "a", refused: map[string]Reason{"b": SameAddress}, says: `BGPPeer "a"`},
		"G12 one address twice, on other nodes":    {peers: []*config.BGPPeer{on("rack=2", at("a", "192.0.2.1")), at("b", "192.0.2.1")}, mine: "b"},
		"one link-local address on two interfaces": {peers: []*config.BGPPeer{at("a", "fe80::1%eth0"), at("b", "fe80::1%eth1")}, mine: "a b"},
		"one found address twice": {peers: []*config.BGPPeer{at("a", "192.0.2.1"), gateway}, site: Site{Found: found("gw", "192.0.2.1")},
			mine: "a", refused: map[string]Reason{"gw": SameAddress}},
		"G12 other router IDs": {peers: []*config.BGPPeer{at("a", "192.0.2.1"), as("1.1.1.1", at("b", "192.0.2.2")), as("2.2.2.2", at("c", "192.0.2.3"))},
			mine: "a b", refused: map[string]Reason{"c": OtherRouterID}, says: "1.1.1.1"},
		"G12 the same router ID": {peers: []*config.BGPPeer{as("1.1.1.1", at("b", "192.0.2.2")), as("1.1.1.1", at("c", "192.0.2.3"))}, mine: "b c"},
		"a router ID of one that has no session does not count": {
			peers: []*config.BGPPeer{at("a", "192.0.2.1"), as("1.1.1.1", at("b", "192.0.2.1")), as("2.2.2.2", at("c", "192.0.2.3"))},
			mine:  "a c", refused: map[string]Reason{"b": SameAddress}},
		"a router ID of one that is yet to be found counts": {
			peers:   []*config.BGPPeer{as("1.1.1.1", over("b", "eth1")), as("2.2.2.2", at("c", "192.0.2.3"))},
			refused: map[string]Reason{"b": NoPeerAddress, "c": OtherRouterID}},
		"G12 one interface twice": {peers: []*config.BGPPeer{over("a", "eth1"), over("b", "eth1")}, site: Site{Found: found("a", "fe80::1%eth1", "b", "fe80::1%eth1")},
			mine: "a", refused: map[string]Reason{"b": SameInterface}, says: "eth1"},
		"two interfaces": {peers: []*config.BGPPeer{over("a", "eth1"), over("b", "eth2")}, site: Site{Found: found("a", "fe80::1%eth1", "b", "fe80::1%eth2")}, mine: "a b"},
		"nobody was heard on the interface": {peers: []*config.BGPPeer{over("a", "eth1")},
			refused: map[string]Reason{"a": NoPeerAddress}, says: "router advertisement"},
		"a default gateway":    {peers: []*config.BGPPeer{gateway}, site: Site{Found: found("gw", "192.0.2.1")}, mine: "gw"},
		"no default gateway":   {peers: []*config.BGPPeer{gateway}, refused: map[string]Reason{"gw": NoPeerAddress}, says: "no default route"},
		"an annotation":        {peers: []*config.BGPPeer{annotated}, site: Site{Found: found("noted", "192.0.2.1")}, mine: "noted"},
		"no annotation":        {peers: []*config.BGPPeer{annotated}, refused: map[string]Reason{"noted": NoPeerAddress}, says: "kubectl annotate node node-a example.com/tor="},
		"the node's address":   {peers: []*config.BGPPeer{at("a", "192.0.2.9")}, site: Site{Own: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}, refused: map[string]Reason{"a": OwnAddress}, says: "192.0.2.9"},
		"a passive peer":       {peers: []*config.BGPPeer{passive(at("a", "192.0.2.1"))}, site: Site{Listens: true}, mine: "a"},
		"nobody listens to it": {peers: []*config.BGPPeer{passive(at("a", "192.0.2.1"))}, refused: map[string]Reason{"a": NoListener}, says: "bgp.listenPort"},
	} {
		t.Run(name, func(t *testing.T) {
			mine, refused := SessionsOf(&Node{Name: "node-a", Labels: labels.Set{"rack": "1"}}, tc.site, tc.peers)
			var names []string
			for _, p := range mine {
				names = append(names, p.Name)
			}
			reasons := map[string]Reason{}
			for name, r := range refused {
				reasons[name] = r.Reason
				if !strings.Contains(r.Message, tc.says) {
					t.Errorf("the message is %q", r.Message)
				}
			}
			if tc.refused == nil {
				tc.refused = map[string]Reason{}
			}
			if got := strings.Join(names, " "); got != tc.mine || !cmp.Equal(reasons, tc.refused) {
				t.Errorf("%q and %v, want %q and %v", got, reasons, tc.mine, tc.refused)
			}
		})
	}
}
