package config

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func parseL2Advertisement(res *v1beta1.L2Advertisement, pools []*Pool, nodes []corev1.Node) (*L2Advertisement, []Fault) {
	var faults []Fault
	fault := func(field string, reason Reason, message string) {
		faults = append(faults, Fault{
			Kind: KindL2Advertisement, Name: res.Name, Field: field, Type: ConditionValid, Reason: reason, Message: message,
		})
	}
	ad := &L2Advertisement{
		Name:       res.Name,
		Nodes:      selectors(res.Spec.NodeSelectors, "spec.nodeSelectors", fault),
		Services:   selectors(res.Spec.ServiceSelectors, "spec.serviceSelectors", fault),
		Interfaces: slices.Clone(res.Spec.Interfaces),
	}
	for i, p := range res.Spec.PreferredNodeSelectors {
		selector := selector(&p.Preference, fmt.Sprintf("spec.preferredNodeSelectors[%d].preference", i), fault)
		ad.Preferred = append(ad.Preferred, PreferredNodes{Weight: int(p.Weight), Selector: selector})
	}
	ad.Pools = resolvePools(&res.Spec, pools, fault)

	selected := func(n corev1.Node) bool { return ad.SelectsNode(labels.Set(n.Labels)) }
	if nodes != nil && len(ad.Nodes) > 0 && !slices.ContainsFunc(nodes, selected) {
		fault("spec.nodeSelectors", ReasonNoNodeSelected, fmt.Sprintf(
			"no node matches %s, so nothing is announced: compare with the labels in kubectl get nodes --show-labels",
			join(ad.Nodes)))
	}
	return ad, faults
}

// resolvePools returns the names of the pools that an advertisement is about, sorted.
func resolvePools(spec *v1beta1.L2AdvertisementSpec, pools []*Pool, fault func(string, Reason, string)) []string {
	const namesField, selectorsField = "spec.ipAddressPools", "spec.ipAddressPoolSelectors"
	all := len(spec.IPAddressPools) == 0 && len(spec.IPAddressPoolSelectors) == 0
	wanted := selectors(spec.IPAddressPoolSelectors, selectorsField, fault)

	known := map[string]bool{}
	selected := map[string]bool{}
	for _, p := range pools {
		known[p.Name] = true
		if all || anyMatches(wanted, p.Labels) {
			selected[p.Name] = true
		}
	}
	unknown := false
	for i, name := range spec.IPAddressPools {
		if known[name] {
			selected[name] = true
			continue
		}
		unknown = true
		fault(fmt.Sprintf("%s[%d]", namesField, i), ReasonPoolNotFound, fmt.Sprintf(
			"there is no IPAddressPool %q: create it, or name one of kubectl get ipaddresspools.steelyard.io", name))
	}
	switch {
	case len(selected) > 0 || unknown:
	case all:
		fault(namesField, ReasonNoPoolSelected, "there is no IPAddressPool to announce: create one")
	default:
		fault(selectorsField, ReasonNoPoolSelected, fmt.Sprintf(
			"no IPAddressPool matches %s, so nothing is announced: compare with the labels in kubectl get ipaddresspools.steelyard.io --show-labels",
			join(wanted)))
	}
	return slices.Sorted(maps.Keys(selected))
}

func selectors(in []metav1.LabelSelector, field string, fault func(string, Reason, string)) []labels.Selector {
	var out []labels.Selector
	for i := range in {
		out = append(out, selector(&in[i], fmt.Sprintf("%s[%d]", field, i), fault))
	}
	return out
}

// selector never leaves a malformed selector out: without it the list might be empty, and an empty list matches everything.
func selector(in *metav1.LabelSelector, field string, fault func(string, Reason, string)) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		fault(field, ReasonMalformedSelector, fmt.Sprintf("matches nothing until it is mended: %v", err))
		return labels.Nothing()
	}
	return s
}

func join(selectors []labels.Selector) string {
	var texts []string
	for _, s := range selectors {
		texts = append(texts, s.String())
	}
	return abridged(texts, " or ")
}
