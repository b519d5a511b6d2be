package config

import (
	"strings"
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

func TestQuota(t *testing.T) {
	cfg, _ := Parse(resources(t, `pool a 1 {addresses: [192.0.2.0/30], namespaceQuotas: [`+
		`{addresses: 0, namespaces: [lab]}, {addresses: 8, namespaces: [shop], namespaceSelectors: [{matchLabels: {tier: front}}, {matchLabels: {tier: back}}]}, `+
		`{addresses: 5, namespaceSelectors: [{matchExpressions: [{key: a, operator: In}]}]}, {addresses: 4, namespaceSelectors: [{matchLabels: {team: zoo}}]}]}`))
	for _, tc := range []struct {
		name, namespace, labels string
		want                    int // -1: no limit
	}{
		{"by name", "lab", "", 0},
		{"the first that matches", "lab", "tier=front", 0},
		{"name or label", "shop", "tier=none", 8},
		{"one of the labels", "bank", "tier=back", 8},
		{"a malformed selector matches nothing", "bank", "team=zoo", 4},
		{"no entry", "bank", "", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, limited := cfg.Pools[0].Quota(tc.namespace, set(t, tc.labels))
			if !limited {
				got = -1
			}
			if got != tc.want {
				t.Errorf("the quota is %d, want %d", got, tc.want)
			}
		})
	}
}

func TestFor(t *testing.T) {
	cfg, _ := Parse(resources(t, `
		reservation nobody 1 {addresses: [192.0.2.1/32]}
		reservation shop 1 {addresses: [192.0.2.2/32], for: {namespace: shop}}
		reservation web 1 {addresses: [192.0.2.3/32], for: {namespace: shop, service: web}}`))
	for service, want := range map[string][3]bool{ // nobody, shop, web
		"shop/web": {false, true, true}, "shop/api": {false, true, false}, "bank/web": {false, false, false},
	} {
		namespace, name, _ := strings.Cut(service, "/")
		var got [3]bool
		for i, r := range cfg.Reservations {
			got[i] = r.For(namespace, name)
		}
		if got != want {
			t.Errorf("%s may have %v, want %v", service, got, want)
		}
	}
}
