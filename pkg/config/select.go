package config

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// resolvePools returns the names of the pools that an advertisement is about, sorted.
func resolvePools(names []string, poolSelectors []metav1.LabelSelector, pools []*Pool, f *complaints) []string {
	const namesField, selectorsField = "spec.ipAddressPools", "spec.ipAddressPoolSelectors"
	all := len(names) == 0 && len(poolSelectors) == 0
	wanted := selectors(poolSelectors, selectorsField, f)

	known := map[string]bool{}
	selected := map[string]bool{}
	for _, p := range pools {
		known[p.Name] = true
		if all || anyMatches(wanted, p.Labels) {
			selected[p.Name] = true
		}
	}
	unknown := false
	for i, name := range names {
		if known[name] {
			selected[name] = true
			continue
		}
		unknown = true
		f.fault(fmt.Sprintf("%s[%d]", namesField, i), ReasonPoolNotFound, fmt.Sprintf(
			"there is no IPAddressPool %q: create it, or name one of kubectl get ipaddresspools.steelyard.io", name))
	}
	switch {
	case len(selected) > 0 || unknown:
	case all:
		f.fault(namesField, ReasonNoPoolSelected, "there is no IPAddressPool to announce: create one")
	default:
		f.fault(selectorsField, ReasonNoPoolSelected, fmt.Sprintf(
			"no IPAddressPool matches %s, so nothing is announced: compare with the labels in kubectl get ipaddresspools.steelyard.io --show-labels",
			join(wanted)))
	}
	return slices.Sorted(maps.Keys(selected))
}

func selectors(in []metav1.LabelSelector, field string, f *complaints) []labels.Selector {
	var out []labels.Selector
	for i := range in {
		out = append(out, selector(&in[i], fmt.Sprintf("%s[%d]", field, i), f))
	}
	return out
}

// selector never leaves a malformed selector out: without it the list might be empty, and an empty list matches everything.
func selector(in *metav1.LabelSelector, field string, f *complaints) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		f.fault(field, ReasonMalformedSelector, fmt.Sprintf("matches nothing until it is mended: %v", err))
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

// judgeNodes finds fault with selectors of nodes that match none, and says what comes of it.
func judgeNodes(selectors []labels.Selector, nodes []corev1.Node, outcome string, f *complaints) {
	selected := func(n corev1.Node) bool { return anyMatches(selectors, labels.Set(n.Labels)) }
	if nodes != nil && len(selectors) > 0 && !slices.ContainsFunc(nodes, selected) {
		f.fault("spec.nodeSelectors", ReasonNoNodeSelected, fmt.Sprintf(
			"no node matches %s, so %s: compare with the labels in kubectl get nodes --show-labels",
			join(selectors), outcome))
	}
}

func anyMatches(selectors []labels.Selector, set labels.Set) bool {
	return slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(set) })
}

// matches is anyMatches for lists that match everything when they are empty.
func matches(selectors []labels.Selector, set labels.Set) bool {
	return len(selectors) == 0 || anyMatches(selectors, set)
}
