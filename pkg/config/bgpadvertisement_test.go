package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// The numbers are those of the scenarios that MetalLB's own tests of its configuration come down to.
func TestParseBGPAdvertisement(t *testing.T) {
	const pools = `
		pool lan 1 {addresses: [192.0.2.0/28]}
		pool dmz-1 1 {addresses: ["2001:db8::/120"]}
		peer tor {myASN: 64512, peerASN: 64513, peerAddress: 198.51.100.1}
	`
	both := []string{"pool dmz-1 [2001:db8::-2001:db8::ff]", "pool lan [192.0.2.0-192.0.2.15]"}
	for _, tc := range []parseCase{
		{
			name:      "the oldest is first, and then by name",
			resources: pools + "bgpad c 1 {}\nbgpad b 2 {}\nbgpad a 1 {}\n",
			want:      append(both[:2:2], "bgpad b [dmz-1 lan] to []", "bgpad a [dmz-1 lan] to []", "bgpad c [dmz-1 lan] to []", "peer tor"),
		},
		{
			name: "G4 a malformed selector of nodes matches nothing",
			resources: pools + `bgpad a 1 {nodeSelectors: [{matchExpressions: [{key: a, operator: Is}]}], serviceSelectors: [{matchLabels: {a: b c}}]}
				node n1 -`,
			want: append(both[:2:2], "bgpad a [dmz-1 lan] to []", "peer tor"),
			faults: []string{
				"a spec.nodeSelectors[0] MalformedSelector: matches nothing",
				"a spec.serviceSelectors[0] MalformedSelector: matches nothing",
				"a spec.nodeSelectors NoNodeSelected: so nothing is announced",
			},
		},
		{
			name:      "G6 a length that no prefix has",
			resources: pools + "bgpad a 1 {aggregationLength: 33}\nbgpad b 1 {aggregationLengthV6: 129}\nbgpad c 1 {aggregationLength: 0, aggregationLengthV6: -1}\nbgpad d 1 {}",
			want:      append(both[:2:2], "bgpad d [dmz-1 lan] to []", "peer tor"),
			faults: []string{
				"a spec.aggregationLength InvalidValue: write 1 to 32",
				"b spec.aggregationLengthV6 InvalidValue: write 1 to 128",
				"c spec.aggregationLength InvalidValue: write 1 to 32",
				"c spec.aggregationLengthV6 InvalidValue: write 1 to 128",
			},
		},
		{
			name:      "G6 an aggregate wider than one of the pools loses this one only",
			resources: pools + "pool wide 1 {addresses: [203.0.113.0/24]}\nbgpad a 1 {aggregationLength: 26}\nbgpad b 1 {aggregationLengthV6: 112}",
			want: append(both[:2:2], "pool wide [203.0.113.0-203.0.113.255]",
				"bgpad a [dmz-1 wide] to []", "bgpad b [lan wide] to []", "peer tor"),
			faults: []string{
				`a spec.aggregationLength AggregationTooWide: a /26 has addresses that the range 192.0.2.0-192.0.2.15 of pool "lan" does not have, so this advertisement leaves the pool out: write 28 or more`,
				`b spec.aggregationLengthV6 AggregationTooWide: a /112 has addresses that the range 2001:db8::-2001:db8::ff of pool "dmz-1" does not have, so this advertisement leaves the pool out: write 120 or more`,
			},
		},
		{
			name:      "G6 a range that one aggregate fits in may begin and end with others",
			resources: "pool p 1 {addresses: [3.3.3.2-3.3.3.254]}\nbgpad a 1 {aggregationLength: 26, peers: [x]}\npeer x {myASN: 1, peerASN: 1, interface: eth0}",
			want:      []string{"pool p [3.3.3.2-3.3.3.254]", "bgpad a [p] to [x]", "peer x"},
		},
		{
			name:      "G6 a range that no aggregate fits in",
			resources: "pool p 1 {addresses: [3.3.3.2-3.3.3.254]}\nbgpad a 1 {aggregationLength: 24, peers: [x]}\npeer x {myASN: 1, peerASN: 1, interface: eth0}",
			want:      []string{"pool p [3.3.3.2-3.3.3.254]", "bgpad a [] to [x]", "peer x"},
			faults:    []string{"a spec.aggregationLength AggregationTooWide: write 26 or more"},
		},
		{
			name:      "G6 ranges that touch are one for an aggregate",
			resources: "pool p 1 {addresses: [0.0.0.0/9, 0.128.0.0-0.255.255.255]}\nbgpad a 1 {aggregationLength: 8, peers: [x]}\npeer x {myASN: 1, peerASN: 1, interface: eth0}",
			want:      []string{"pool p [0.0.0.0-0.255.255.255]", "bgpad a [p] to [x]", "peer x"},
		},
		{
			name:      "G7 another localPref for the same prefixes, nodes and peers",
			resources: pools + "bgpad old 2 {localPref: 200}\nbgpad young 1 {localPref: 300, peers: [tor]}",
			want:      append(both[:2:2], "bgpad old [dmz-1 lan] to []", "bgpad young [dmz-1 lan] to [tor]", "peer tor"),
			faults:    []string{`young spec.localPref LocalPrefConflict: is 300 where the older advertisement "old", which wins, has 200 for the same peers and nodes and the pools dmz-1, lan`},
		},
		{
			name: "G7 another localPref for prefixes of another length, or where that leaves one family in common",
			resources: pools + "bgpad old 2 {localPref: 200}\nbgpad young 1 {localPref: 300, aggregationLength: 28, ipAddressPools: [lan]}\n" +
				"bgpad youngest 0 {aggregationLength: 30}",
			want: append(both[:2:2], "bgpad old [dmz-1 lan] to []", "bgpad young [lan] to []", "bgpad youngest [dmz-1 lan] to []", "peer tor"),
			faults: []string{
				`youngest spec.localPref LocalPrefConflict: is 0 where the older advertisement "old", which wins, has 200 for the same peers and nodes and the pools dmz-1:`,
			},
		},
		{
			name: "G7 another localPref on other nodes",
			resources: pools + "bgpad old 2 {localPref: 200, nodeSelectors: [{matchLabels: {rack: a}}]}\n" +
				"bgpad young 1 {localPref: 300, nodeSelectors: [{matchLabels: {rack: b}}]}\nnode n1 rack=a\nnode n2 rack=b",
			want: append(both[:2:2], "bgpad old [dmz-1 lan] to []", "bgpad young [dmz-1 lan] to []", "peer tor"),
		},
		{
			name: "G7 another localPref on one node in common",
			resources: pools + "bgpad old 2 {localPref: 200, nodeSelectors: [{matchLabels: {rack: a}}]}\n" +
				"bgpad young 1 {localPref: 300, nodeSelectors: [{matchLabels: {rack: b}}, {matchLabels: {nic: fast}}]}\nnode n1 rack=a,nic=fast\nnode n2 rack=b",
			want:   append(both[:2:2], "bgpad old [dmz-1 lan] to []", "bgpad young [dmz-1 lan] to []", "peer tor"),
			faults: []string{"young spec.localPref LocalPrefConflict: keep their pools, peers or nodes apart"},
		},
		{
			name: "G7 another localPref on nodes that are not known is not judged",
			resources: pools + "bgpad old 2 {localPref: 200, nodeSelectors: [{matchLabels: {rack: a}}]}\n" +
				"bgpad young 1 {localPref: 300, nodeSelectors: [{matchLabels: {rack: a}}]}",
			want: append(both[:2:2], "bgpad old [dmz-1 lan] to []", "bgpad young [dmz-1 lan] to []", "peer tor"),
		},
		{
			name: "G7 another localPref for other peers",
			resources: pools + "peer spine {myASN: 1, peerASN: 1, interface: eth0}\n" +
				"bgpad old 2 {localPref: 200, peers: [spine]}\nbgpad young 1 {localPref: 300, peers: [tor]}",
			want: append(both[:2:2], "bgpad old [dmz-1 lan] to [spine]", "bgpad young [dmz-1 lan] to [tor]", "peer spine", "peer tor"),
		},
		{
			name:      "G7 another localPref for Services that are not known here",
			resources: pools + "bgpad old 2 {localPref: 200}\nbgpad young 1 {localPref: 300, serviceSelectors: [{matchLabels: {app: a}}]}",
			want:      append(both[:2:2], "bgpad old [dmz-1 lan] to []", "bgpad young [dmz-1 lan] to []", "peer tor"),
		},
		{
			name: "G8 an advertisement with a community that can't be read is not in force",
			resources: pools + `community names 1 {communities: [{name: good, value: 65000:1}, {name: bad, value: 65000:70000}]}
				bgpad a 1 {communities: [good, 65000]}
				bgpad b 1 {communities: ["65536:1"]}
				bgpad c 1 {communities: [bad, nobody]}
				bgpad d 1 {communities: [good, good, no-export, "large:4200000000:1:2"]}`,
			want: append(both[:2:2], "bgpad d [dmz-1 lan] to []", "peer tor"),
			faults: []string{
				`a spec.communities[1] CommunityNotFound: "65000" is neither a community nor a well-known name`,
				`b spec.communities[0] MalformedCommunity: 65536 in community "65536:1" is above 65535`,
				`c spec.communities[0] MalformedCommunity: the Community "names" has no readable value for "bad": mend it there; the advertisement is not in force`,
				`c spec.communities[1] CommunityNotFound: no Community has the name, and "nobody" is neither`,
				`names spec.communities[1].value MalformedCommunity: until then this entry gives "bad" no meaning`,
			},
		},
		{
			name:      "G13 no selector is every pool, a label that none has is no pool, name and selector are one",
			resources: pools + "bgpad a 1 {}\nbgpad b 1 {ipAddressPoolSelectors: [{matchLabels: {x: z}}]}\nbgpad c 1 {ipAddressPools: [dmz-1], ipAddressPoolSelectors: [{matchLabels: {network: dmz}}]}",
			want:      append(both[:2:2], "bgpad a [dmz-1 lan] to []", "bgpad b [] to []", "bgpad c [dmz-1] to []", "peer tor"),
			faults:    []string{"b spec.ipAddressPoolSelectors NoPoolSelected: no IPAddressPool matches x=z"},
		},
		{
			name:      "an unknown pool and an unknown peer, whose name must not turn into all peers",
			resources: pools + "bgpad a 1 {ipAddressPools: [lan, ghost], peers: [tor, spine, tor]}\nbgpad b 1 {peers: [ghost]}",
			want:      append(both[:2:2], "bgpad a [lan] to [spine tor]", "bgpad b [dmz-1 lan] to [ghost]", "peer tor"),
			faults: []string{
				`a spec.peers[1] PeerNotFound: there is no BGPPeer "spine": create it`,
				`a spec.ipAddressPools[1] PoolNotFound: there is no IPAddressPool "ghost"`,
				`b spec.peers[0] PeerNotFound: there is no BGPPeer "ghost": create it`,
			},
		},
		{
			name:      "no peer at all",
			resources: "pool lan 1 {addresses: [192.0.2.0/28]}\nbgpad a 1 {}",
			want:      []string{"pool lan [192.0.2.0-192.0.2.15]", "bgpad a [lan] to []"},
			faults:    []string{"a spec.peers NoPeer: there is no BGPPeer to tell: create one"},
		},
		{
			name: "G14 serviceSelectors go with the default lengths only",
			resources: pools + "bgpad a 1 {aggregationLength: 30, serviceSelectors: [{}]}\nbgpad b 1 {aggregationLengthV6: 124, serviceSelectors: [{}]}\n" +
				"bgpad c 1 {aggregationLength: 32, aggregationLengthV6: 128, serviceSelectors: [{}]}",
			want: append(both[:2:2], "bgpad c [dmz-1 lan] to []", "peer tor"),
			faults: []string{
				"a spec.serviceSelectors Contradiction: take away the selectors, or aggregationLength",
				"b spec.serviceSelectors Contradiction: take away the selectors, or aggregationLength",
			},
		},
		{
			name:      "asPathPrepend",
			resources: pools + "bgpad a 1 {asPathPrepend: 11}\nbgpad b 1 {asPathPrepend: -1}\nbgpad c 1 {asPathPrepend: 10}",
			want:      append(both[:2:2], "bgpad c [dmz-1 lan] to []", "peer tor"),
			faults: []string{
				"a spec.asPathPrepend InvalidValue: 11 is not possible: write 0 to 10",
				"b spec.asPathPrepend InvalidValue: -1 is not possible: write 0 to 10",
			},
		},
	} {
		t.Run(tc.name, tc.run)
	}
}

func TestBGPAdvertisementFields(t *testing.T) {
	cfg, _ := Parse(resources(t, `
		community names 1 {communities: [{name: b, value: "65000:2"}, {name: a, value: "65000:1"}, {name: also-a, value: "65000:1"}]}
		bgpad a 2 {}
		bgpad b 1 {aggregationLength: 24, aggregationLengthV6: 64, localPref: 7, med: 0, asPathPrepend: 3, weightByEndpoints: true, communities: ["large:1:2:3", b, a, also-a, no-export]}
	`))
	want := []*BGPAdvertisement{
		{Name: "a", Length4: 32, Length6: 128},
		{Name: "b", Length4: 24, Length6: 64, WeightByEndpoints: true, Attributes: bgp.Attributes{
			LocalPref: 7, HasMED: true, Prepend: 3,
			Communities: []bgp.Community{{A: 65000, B: 1}, {A: 65000, B: 2}, {A: 65535, B: 65281}, {Large: true, A: 1, B: 2, C: 3}},
		}},
	}
	if diff := cmp.Diff(want, cfg.BGPAdvertisements); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
