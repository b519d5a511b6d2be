package iptables

import (
	"slices"
	"strings"
)

// compare returns what makes want of all that a family has in the kernel.
func (r *renderer) compare(rules map[place][]string, want *layout) *plan {
	kube := r.full || orphaned(rules)
	have := newLayout()
	var missing []place
	for at := range want.shared {
		if _, exists := rules[at]; !exists {
			missing = append(missing, at)
		}
	}
	for at, now := range rules {
		_, shared := want.shared[at]
		switch {
		case at == place{filter, kubeletFirewall}:
			if shared { // only what is missing there is our business
				have.shared[at] = intersect(now, want.shared[at])
			}
		case shared:
			have.shared[at] = now
		case mine(at.chain, kube):
			have.chains = append(have.chains, chain{at, now})
		}
	}
	if _, taken := rules[place{nat, owner}]; r.full && !taken {
		// The chains were kube-proxy's until now. Should it come back, it will make its canary again.
		if _, exists := rules[place{nat, canary}]; exists {
			have.chains = append(have.chains, chain{place{nat, canary}, nil})
		}
	}
	sortChains(have.chains)
	p := between(have, want)
	p.declare = missing
	wrong := r.misplaced(rules)
	for _, j := range wrong {
		p.jumps = append(p.jumps, entry(j))
	}
	right := r.jumps()
	p.remove = append(p.remove, jumpsTo(rules, func(e entry) bool {
		if slices.Contains(wrong, jump(e)) {
			return true
		}
		return mine(target(e.rule), kube) && !slices.Contains(right, jump(e))
	})...)
	return p
}

// leave returns what takes away all that is Steelyard's.
func leave(rules map[place][]string) *plan {
	kube := orphaned(rules)
	p := &plan{}
	_, kubelet := rules[place{filter, "KUBE-KUBELET-CANARY"}]
	guard := kube && !kubelet && len(rules[place{filter, kubeletFirewall}]) == 1
	gone := func(chain string) bool { return mine(chain, kube) || guard && chain == kubeletFirewall }
	p.remove = jumpsTo(rules, func(e entry) bool { return gone(target(e.rule)) })
	var chains []chain
	for at, now := range rules {
		if gone(at.chain) {
			chains = append(chains, chain{at, now})
		}
	}
	sortChains(chains)
	for _, c := range slices.Backward(chains) {
		p.stale = append(p.stale, c.place)
	}
	return p
}

// orphaned says whether the KUBE chains were made by Steelyard, and kube-proxy has not taken them over since.
func orphaned(rules map[place][]string) bool {
	_, ours := rules[place{nat, owner}]
	_, theirs := rules[place{nat, canary}]
	return ours && !theirs
}

var builtIn = map[string][]string{
	nat:    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	filter: {"INPUT", "FORWARD", "OUTPUT"},
}

// jumpsTo returns the rules of built-in chains that are selected.
func jumpsTo(rules map[place][]string, selected func(entry) bool) []entry {
	var found []entry
	for _, table := range []string{nat, filter} {
		for _, name := range builtIn[table] {
			at := place{table, name}
			for _, rule := range rules[at] {
				if e := (entry{at, rule}); selected(e) {
					found = append(found, e)
				}
			}
		}
	}
	return found
}

func intersect(a, b []string) []string {
	var both []string
	for _, s := range a {
		if slices.Contains(b, s) && !slices.Contains(both, s) {
			both = append(both, s)
		}
	}
	return both
}

// sortChains puts chains behind those that they jump to.
func sortChains(chains []chain) {
	order := []string{"MARK-MASQ", "MARK-OTHERS", "SEP-", "SVC-", "SVL-", "EXT-", "FW-"}
	rank := func(c chain) int {
		_, rest, _ := strings.Cut(c.chain, "-")
		if i := slices.IndexFunc(order, func(kind string) bool { return strings.HasPrefix(rest, kind) }); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(chains, func(a, b chain) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.table+a.chain, b.table+b.chain)
	})
}
