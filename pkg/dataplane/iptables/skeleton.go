package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// owner is an empty chain of the table nat which says that the KUBE chains are Steelyard's and not kube-proxy's.
const owner = "STLY-OWNER"

// canary is the chain by which kube-proxy finds out that its rules were flushed. Steelyard has none.
const canary = "KUBE-PROXY-CANARY"

// kubeletFirewall is a chain that the kubelet fills too.
const kubeletFirewall = "KUBE-FIREWALL"

// jump is a rule of a built-in chain that leads to one of ours.
type jump struct {
	place
	rule string
}

// jumps returns the rules of built-in chains, in the order that they should have.
func (r *renderer) jumps() []jump {
	const fresh = "-m conntrack --ctstate NEW "
	var jumps []jump
	add := func(table, from, match, text, to string) {
		jumps = append(jumps, jump{place{table, from}, match + comment("%s", text) + " -j " + r.prefix + to})
	}
	for _, from := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		add(filter, from, fresh, "kubernetes load balancer firewall", "-PROXY-FIREWALL")
		if from == "INPUT" && r.full {
			add(filter, from, "", "kubernetes health check service ports", "-NODEPORTS")
		}
		if from == "FORWARD" {
			add(filter, from, "", "kubernetes forwarding rules", "-FORWARD")
		}
		if from != "INPUT" && r.full {
			add(filter, from, fresh, "kubernetes service portals", "-SERVICES")
		}
		// In OUTPUT too, other than kube-proxy's: the node itself would wait in vain for an address without endpoints.
		add(filter, from, fresh, "kubernetes externally-visible service portals", "-EXTERNAL-SERVICES")
		if from != "FORWARD" && r.guarded() {
			jumps = append(jumps, jump{place{filter, from}, "-j " + kubeletFirewall})
		}
	}
	add(nat, "PREROUTING", "", "kubernetes service portals", "-SERVICES")
	add(nat, "OUTPUT", "", "kubernetes service portals", "-SERVICES")
	add(nat, "POSTROUTING", "", "kubernetes postrouting rules", "-POSTROUTING")
	return jumps
}

// guarded says whether node ports are open on the loopback, so that it has to be guarded against packets from elsewhere (CVE-2020-8558).
func (r *renderer) guarded() bool {
	return r.full && r.family == dataplane.IPv4 && r.host.LocalhostNodePorts
}

// skeleton adds the chains that are there whatever the Services are.
func (r *renderer) skeleton(l *layout) {
	l.chain(nat, r.prefix+"-MARK-MASQ", fmt.Sprintf("-j MARK --set-xmark %s/%s", r.mark, r.mark))
	if len(r.pods) > 1 {
		var rules []string
		for _, pods := range r.pods {
			rules = append(rules, fmt.Sprintf("%s %s -j RETURN", pods.option, pods.value))
		}
		l.chain(nat, r.prefix+"-MARK-OTHERS", append(rules, "-j "+r.prefix+"-MARK-MASQ")...)
	}
	// The mark goes before the packet does, so that it is not masqueraded again when a tunnel sends it through here once more.
	l.chain(nat, r.prefix+"-POSTROUTING",
		fmt.Sprintf("-m mark ! --mark %s/%s -j RETURN", r.mark, r.mark),
		fmt.Sprintf("-j MARK --set-xmark %s/0x0", r.mark),
		comment("kubernetes service traffic requiring SNAT")+" -j MASQUERADE --random-fully")
	var forward []string
	if r.dropInvalid {
		forward = append(forward, "-m conntrack --ctstate INVALID -j DROP")
	}
	l.chain(filter, r.prefix+"-FORWARD", append(forward,
		fmt.Sprintf("%s -m mark --mark %s/%s -j ACCEPT", comment("kubernetes forwarding rules"), r.mark, r.mark),
		comment("kubernetes forwarding conntrack rule")+" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")...)
	l.share(nat, r.prefix+"-SERVICES")
	l.share(filter, r.prefix+"-EXTERNAL-SERVICES")
	l.share(filter, r.prefix+"-PROXY-FIREWALL")
	if !r.full {
		return
	}
	l.chain(nat, owner)
	l.share(nat, "KUBE-NODEPORTS")
	l.share(filter, "KUBE-SERVICES")
	l.share(filter, "KUBE-NODEPORTS")
	l.tails[place{nat, "KUBE-SERVICES"}] = r.nodePorts()
	if r.guarded() {
		l.share(filter, kubeletFirewall, "! -s 127.0.0.0/8 -d 127.0.0.0/8 "+comment("block incoming localnet connections")+
			" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP")
	}
}

// nodePorts returns the rules that end KUBE-SERVICES: which addresses have node ports. They come last because an address of the node may
// be a load-balancer address too.
func (r *renderer) nodePorts() []string {
	suffix := comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain")
	if r.host.NodePortAddrs == nil {
		suffix += " -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
		switch {
		case r.family == dataplane.IPv6:
			return []string{"! -d ::1/128 " + suffix}
		case r.host.LocalhostNodePorts:
			return []string{suffix}
		}
		return []string{"! -d 127.0.0.0/8 " + suffix}
	}
	var rules []string
	for _, a := range r.host.NodePortAddrs {
		if !a.IsLoopback() && a.Is4() == (r.family == dataplane.IPv4) {
			rules = append(rules, fmt.Sprintf("-d %s %s -j KUBE-NODEPORTS", only(a), suffix))
		}
	}
	if r.guarded() {
		loopback := netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
		rules = append(rules, fmt.Sprintf("-d %s %s -j KUBE-NODEPORTS", loopback, suffix))
	}
	return rules
}

// misplaced returns the jumps that have to be written again, because they are missing, double, or behind those of kube-proxy, which would
// take the packet first. rules are those of the built-in chains.
func (r *renderer) misplaced(rules map[place][]string) []jump {
	var wrong []jump
	for _, j := range r.jumps() {
		have := rules[j.place]
		first := slices.Index(have, j.rule)
		bad := first < 0 || slices.Contains(have[first+1:], j.rule)
		if !r.full && j.table == nat && !bad {
			theirs := slices.IndexFunc(have, func(rule string) bool { return strings.HasSuffix(rule, " -j KUBE-SERVICES") })
			bad = theirs >= 0 && theirs < first
		}
		if bad {
			wrong = append(wrong, j)
		}
	}
	return wrong
}

// The chains of Services, by what follows the prefix.
var kinds = []string{"SVC-", "SVL-", "EXT-", "FW-", "SEP-"}

// The chains of kube-proxy's layout that do not belong to one Service, by what follows the prefix.
var fixed = []string{"SERVICES", "NODEPORTS", "EXTERNAL-SERVICES", "PROXY-FIREWALL", "FORWARD", "POSTROUTING", "MARK-MASQ", "MARK-OTHERS"}

// mine says whether a chain is one that this package makes; kube: in full mode, where the chains have kube-proxy's names.
func mine(name string, kube bool) bool {
	if strings.HasPrefix(name, "STLY-") {
		return true
	}
	rest, is := strings.CutPrefix(name, "KUBE-")
	return kube && is && (slices.Contains(fixed, rest) || slices.ContainsFunc(kinds, func(kind string) bool { return strings.HasPrefix(rest, kind) }))
}
