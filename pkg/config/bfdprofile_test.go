package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseBFDProfiles(t *testing.T) {
	const rest = "peer tor {myASN: 1, peerASN: 2, peerAddress: 198.51.100.1, bfdProfile: fast}\n"
	for _, tc := range []parseCase{
		{name: "G9 a profile", resources: rest + "bfd fast {}", want: []string{"peer tor"}},
		{
			name: "G9 an unknown profile: the peer goes without BFD", resources: rest + "bfd slow {}", want: []string{"peer tor"},
			faults: []string{`tor spec.bfdProfile BFDProfileNotFound: there is no BFDProfile "fast", and the peer goes without BFD: create it`},
		},
		{
			name: "G9 values that are not possible: the peer goes without BFD", want: []string{"peer tor"},
			resources: rest + "bfd fast {receiveInterval: 9, transmitInterval: 60001, detectMultiplier: 1, minimumTtl: 255}",
			faults: []string{
				"fast spec.receiveInterval InvalidValue: 9 is not possible: write 10 to 60000",
				"fast spec.transmitInterval InvalidValue: 60001 is not possible: write 10 to 60000",
				"fast spec.detectMultiplier InvalidValue: 1 is not possible: write 2 to 255",
				"fast spec.minimumTtl InvalidValue: 255 is not possible: write 1 to 254",
				`tor spec.bfdProfile BFDProfileInvalid: the BFDProfile "fast" has a fault, and the peer goes without BFD`,
			},
		},
		{
			name: "G9 echo mode is not used, and the profile is", resources: rest + "bfd fast {echoMode: true, echoInterval: 50}", want: []string{"peer tor"},
			faults: []string{"warning fast spec.echoMode EchoNotUsed: echo packets are not sent"},
		},
	} {
		t.Run(tc.name, tc.run)
	}
}

func TestBFDProfileFields(t *testing.T) {
	for name, test := range map[string]struct {
		spec string
		want *BFDProfile
	}{
		"defaults": {"{echoMode: true}", &BFDProfile{Name: "fast", Transmit: 300 * time.Millisecond, Receive: 300 * time.Millisecond, Multiplier: 3, MinimumTTL: 254}},
		"all": {"{transmitInterval: 10, receiveInterval: 60000, detectMultiplier: 255, passiveMode: true, minimumTtl: 1}",
			&BFDProfile{Name: "fast", Transmit: 10 * time.Millisecond, Receive: time.Minute, Multiplier: 255, Passive: true, MinimumTTL: 1}},
		"not possible": {"{detectMultiplier: 256}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := Parse(resources(t, "peer tor {myASN: 1, peerASN: 2, peerAddress: 198.51.100.1, bfdProfile: fast}\nbfd fast "+test.spec))
			if diff := cmp.Diff(test.want, cfg.BGPPeers[0].BFD); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
