package config

import (
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func advertisement(t *testing.T, spec string) *L2Advertisement {
	t.Helper()
	cfg, _ := Parse(resources(t, "ad a "+spec))
	return cfg.L2Advertisements[0]
}

func TestSelectsNodeAndService(t *testing.T) {
	for _, tc := range []struct {
		name, selectors, labels string
		want                    bool
	}{
		{"no selectors match all", `[]`, "", true},
		{"an empty selector matches all", `[{}]`, "", true},
		{"match", `[{matchLabels: {role: edge}}]`, "role=edge,rack=a", true},
		{"other value", `[{matchLabels: {role: edge}}]`, "role=worker", false},
		{"one of two is enough", `[{matchLabels: {role: edge}}, {matchLabels: {rack: a}}]`, "rack=a", true},
		{"within one, all must match", `[{matchLabels: {role: edge, rack: a}}]`, "rack=a", false},
		{"expression", `[{matchExpressions: [{key: rack, operator: NotIn, values: [a, b]}]}]`, "rack=c", true},
		{"malformed alone matches nothing", `[{matchExpressions: [{key: a, operator: In}]}]`, "role=edge", false},
		{"malformed beside a good one", `[{matchExpressions: [{key: a, operator: In}]}, {matchLabels: {role: edge}}]`, "role=edge", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ad := advertisement(t, `{nodeSelectors: `+tc.selectors+`, serviceSelectors: `+tc.selectors+`}`)
			if got := ad.SelectsNode(set(t, tc.labels)); got != tc.want {
				t.Errorf("SelectsNode is %t", got)
			}
			if got := ad.SelectsService(set(t, tc.labels)); got != tc.want {
				t.Errorf("SelectsService is %t", got)
			}
		})
	}
}

func TestWeight(t *testing.T) {
	ad := advertisement(t, `{nodeSelectors: [{matchLabels: {role: edge}}], preferredNodeSelectors: [`+
		`{weight: 100, preference: {matchLabels: {rack: a}}}, {weight: 20, preference: {matchLabels: {nic: fast}}}, {weight: 3, preference: {}}]}`)
	for labels, want := range map[string]int{
		"role=edge":                 3,
		"role=edge,rack=a":          103,
		"role=edge,nic=fast":        23,
		"role=edge,rack=a,nic=fast": 123,
		"role=worker,rack=a":        0, // not selected, so not preferred
	} {
		if got := ad.Weight(set(t, labels)); got != want {
			t.Errorf("the weight of %s is %d, want %d", labels, got, want)
		}
	}
}

func TestAllows(t *testing.T) {
	for _, tc := range []struct {
		name, allocation                          string
		namespace, namespaceLabels, serviceLabels string
		want                                      bool
	}{
		{"priority only allows all", `{priority: 5}`, "any", "", "", true},
		{"namespace by name", `{namespaces: [shop, bank]}`, "bank", "", "", true},
		{"another namespace", `{namespaces: [shop]}`, "bank", "", "", false},
		{"namespace by label", `{namespaceSelectors: [{matchLabels: {tier: front}}]}`, "bank", "tier=front", "", true},
		{"name or label", `{namespaces: [shop], namespaceSelectors: [{matchLabels: {tier: front}}]}`, "shop", "tier=back", "", true},
		{"neither name nor label", `{namespaces: [shop], namespaceSelectors: [{matchLabels: {tier: front}}]}`, "bank", "tier=back", "", false},
		{"Service by label", `{serviceSelectors: [{matchLabels: {app: a}}, {matchLabels: {app: b}}]}`, "any", "", "app=b", true},
		{"Service with another label", `{serviceSelectors: [{matchLabels: {app: a}}]}`, "any", "", "app=b", false},
		{"namespace and Service", `{namespaces: [shop], serviceSelectors: [{matchLabels: {app: a}}]}`, "shop", "", "app=a", true},
		{"namespace but not Service", `{namespaces: [shop], serviceSelectors: [{matchLabels: {app: a}}]}`, "shop", "", "", false},
		{"Service but not namespace", `{namespaces: [shop], serviceSelectors: [{matchLabels: {app: a}}]}`, "bank", "", "app=a", false},
		{"a malformed selector reserves the pool for nobody", `{serviceSelectors: [{matchLabels: {a b: c}}]}`, "any", "", "app=a", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var allocation v1beta1.ServiceAllocation
			mustUnmarshal(t, tc.allocation, &allocation)
			r := resources(t, `pool a 1 {addresses: [192.0.2.0/30]}`)
			r.Pools[0].Spec.ServiceAllocation = &allocation
			cfg, _ := Parse(r)
			got := cfg.Pools[0].Allocation.Allows(tc.namespace, set(t, tc.namespaceLabels), set(t, tc.serviceLabels))
			if got != tc.want {
				t.Errorf("Allows is %t", got)
			}
		})
	}
}
