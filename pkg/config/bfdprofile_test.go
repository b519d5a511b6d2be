package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

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
