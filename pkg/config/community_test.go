package config

import "testing"

func TestParseCommunities(t *testing.T) {
	const rest = "pool lan 1 {addresses: [192.0.2.0/28]}\npeer tor {myASN: 1, peerASN: 2, peerAddress: 198.51.100.1}\n"
	const pool, peer = "pool lan [192.0.2.0-192.0.2.15]", "peer tor"
	for _, tc := range []parseCase{
		{
			name:      "G8 a name twice in one object: the first has it",
			resources: rest + `community a 1 {communities: [{name: x, value: "1:1"}, {name: x, value: "1:2"}]}`,
			want:      []string{pool, peer},
			faults:    []string{`a spec.communities[1].name DuplicateCommunity: spec.communities[0] has the name "x" too`},
		},
		{
			name:      "G8 a name in two objects: the older has it",
			resources: rest + `community a 1 {communities: [{name: y, value: "1:1"}, {name: x, value: "1:2"}]}` + "\n" + `community b 2 {communities: [{name: x, value: "1:3"}]}`,
			want:      []string{pool, peer},
			faults:    []string{`a spec.communities[1].name DuplicateCommunity: the older Community "b" has the name "x" too (spec.communities[0] there)`},
		},
		{
			name: "G8 a value that can't be read takes no name from another object",
			resources: rest + `community a 2 {communities: [{name: x, value: "1:2:3"}]}` + "\n" + `community b 1 {communities: [{name: x, value: "1:3"}]}` + "\n" +
				"bgpad ad 1 {communities: [x]}",
			want:   []string{pool, "bgpad ad [lan] to []", peer},
			faults: []string{`a spec.communities[0].value MalformedCommunity: write large:1:2:3`},
		},
		{
			name:      "the well-known names keep their meaning, and may be written out",
			resources: rest + `community a 1 {communities: [{name: no-export, value: "65535:65281"}, {name: no-advertise, value: "1:1"}]}`,
			want:      []string{pool, peer},
			faults:    []string{`a spec.communities[1].name DuplicateCommunity: "no-advertise" has a meaning of its own and can't stand for 1:1`},
		},
	} {
		t.Run(tc.name, tc.run)
	}
}
