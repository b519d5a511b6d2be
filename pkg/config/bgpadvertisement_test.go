package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

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
