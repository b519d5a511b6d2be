package config

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func parseL2Advertisement(res *v1beta1.L2Advertisement, pools []*Pool, nodes []corev1.Node) (*L2Advertisement, []Fault) {
	f := complaints{kind: KindL2Advertisement, name: res.Name}
	ad := &L2Advertisement{
		Name:       res.Name,
		Nodes:      selectors(res.Spec.NodeSelectors, "spec.nodeSelectors", &f),
		Services:   selectors(res.Spec.ServiceSelectors, "spec.serviceSelectors", &f),
		Interfaces: slices.Clone(res.Spec.Interfaces),
	}
	for i, p := range res.Spec.PreferredNodeSelectors {
		selector := selector(&p.Preference, fmt.Sprintf("spec.preferredNodeSelectors[%d].preference", i), &f)
		ad.Preferred = append(ad.Preferred, PreferredNodes{Weight: int(p.Weight), Selector: selector})
	}
	ad.Pools = resolvePools(res.Spec.IPAddressPools, res.Spec.IPAddressPoolSelectors, pools, &f)
	judgeNodes(ad.Nodes, nodes, "nothing is announced", &f)
	return ad, f.faults
}
