package config

import "testing"

func TestSessionFaults(t *testing.T) {
	const asns, nodes = "myASN: 1, peerASN: 2, ", "node n1 rack=a 192.0.2.11\nnode n2 rack=b 192.0.2.12 2001:db8::12\nnode n3 rack=b\n"
	const rackA, rackB = "nodeSelectors: [{matchLabels: {rack: a}}]", "nodeSelectors: [{matchLabels: {rack: b}}]"
	both := []string{"peer a", "peer b"}
	for _, tc := range []parseCase{
		{
			name: "G3 two peers that are the same", want: both,
			resources: nodes + "peer a {" + asns + "peerAddress: 192.0.2.1}\npeer b {" + asns + "peerAddress: 192.0.2.1}",
			faults:    []string{`b spec.peerAddress DuplicatePeer: is the same as that of the BGPPeer "a", which has the session on n1, n2, n3`},
		},
		{
			name: "G12 one address on other nodes", want: both,
			resources: nodes + "peer a {" + asns + "peerAddress: 192.0.2.1, " + rackA + "}\npeer b {" + asns + "peerAddress: 192.0.2.1, " + rackB + "}",
		},
		{
			name: "G12 one address, and one of the two is for all nodes", want: both,
			resources: nodes + "peer a {" + asns + "peerAddress: 192.0.2.1, " + rackB + "}\npeer b {" + asns + "peerAddress: 192.0.2.1}",
			faults:    []string{`b spec.peerAddress DuplicatePeer: which has the session on n2, n3`},
		},
		{
			name: "G12 one address, and the second selector has a node in common", want: both,
			resources: nodes + "peer a {" + asns + "peerAddress: 192.0.2.1, " + rackA + "}\npeer b {" + asns + "peerAddress: 192.0.2.1, nodeSelectors: [{matchLabels: {rack: c}}, {matchExpressions: [{key: rack, operator: In, values: [a]}]}]}",
			faults:    []string{`b spec.peerAddress DuplicatePeer: which has the session on n1:`},
		},
		{
			name: "G12 one address where nodes are not known is not judged", want: both,
			resources: "peer a {" + asns + "peerAddress: 192.0.2.1}\npeer b {" + asns + "peerAddress: 192.0.2.1}",
		},
		{
			name: "G12 one interface, gateway or annotation", want: []string{"peer a", "peer b", "peer c", "peer d", "peer e", "peer f"},
			resources: "node n1 - 192.0.2.11\npeer a {" + asns + "interface: eth0}\npeer b {" + asns + "interface: eth0}\n" +
				"peer c {" + asns + "peerAddressFrom: {defaultGateway: IPv4}}\npeer d {" + asns + "peerAddressFrom: {defaultGateway: IPv4}}\n" +
				"peer e {" + asns + "peerAddressFrom: {nodeAnnotation: x}}\npeer f {" + asns + "peerAddressFrom: {nodeAnnotation: x}}",
			faults: []string{
				`b spec.interface DuplicatePeer: the BGPPeer "a", which has the session on n1`,
				`d spec.peerAddressFrom.defaultGateway DuplicatePeer: the BGPPeer "c"`,
				`f spec.peerAddressFrom.nodeAnnotation DuplicatePeer: the BGPPeer "e"`,
			},
		},
		{
			name: "G12 other router IDs on one node", want: []string{"peer a", "peer b", "peer c", "peer d"},
			resources: nodes + "peer a {" + asns + "peerAddress: 192.0.2.1}\npeer b {" + asns + "peerAddress: 192.0.2.2, routerID: 10.0.0.1, " + rackB + "}\n" +
				"peer c {" + asns + "peerAddress: 192.0.2.3, routerID: 10.0.0.2}\npeer d {" + asns + "peerAddress: 192.0.2.4, routerID: 10.0.0.2, " + rackA + "}",
			faults: []string{`c spec.routerID RouterIDConflict: is another than that of the BGPPeer "b", and so there is no session on n2, n3`},
		},
		{
			name: "a peer that has no session stands in nobody's way", want: []string{"peer a", "peer b", "peer c"},
			resources: nodes + "peer a {" + asns + "peerAddress: 192.0.2.1, routerID: 10.0.0.1, " + rackA + "}\npeer b {" + asns + "peerAddress: 192.0.2.2, routerID: 10.0.0.2, " + rackA + "}\n" +
				"peer c {" + asns + "peerAddress: 192.0.2.2, " + rackA + "}",
			faults: []string{`b spec.routerID RouterIDConflict: no session on n1`},
		},
		{
			name: "a node's own address", want: []string{"peer a", "peer b"},
			resources: nodes + "peer a {" + asns + "peerAddress: '2001:db8::12'}\npeer b {" + asns + "peerAddress: 192.0.2.12, " + rackA + "}",
			faults:    []string{"a spec.peerAddress PeerIsNode: 2001:db8::12 is an address of the node itself on n2: leave the node out by nodeSelectors"},
		},
	} {
		t.Run(tc.name, tc.run)
	}
}
