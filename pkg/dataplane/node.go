package dataplane

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// taintScaleDown is what the cluster autoscaler puts on a node that it is about to delete.
const taintScaleDown = "ToBeDeletedByClusterAutoscaler"

// Node is what matters of this node's Node.
type Node struct {
	Zone     string // empty if unknown
	PodCIDRs []netip.Prefix
	Addrs    []netip.Addr // its internal addresses, then its external ones; the first of a family is its primary one
	Deleting bool         // it goes away soon: load balancers had better not send it anything new (KEP-3836)
}

// NodeOf takes from a Node what matters.
func NodeOf(node *corev1.Node) Node {
	n := Node{Zone: node.Labels[corev1.LabelTopologyZone], Deleting: node.DeletionTimestamp != nil}
	for _, taint := range node.Spec.Taints {
		n.Deleting = n.Deleting || taint.Key == taintScaleDown
	}
	cidrs := node.Spec.PodCIDRs
	if len(cidrs) == 0 {
		cidrs = []string{node.Spec.PodCIDR}
	}
	for _, text := range cidrs {
		if p, ok := parsePrefix(text); ok {
			n.PodCIDRs = append(n.PodCIDRs, p)
		}
	}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range node.Status.Addresses {
			if a.Type == kind {
				n.Addrs = appendAddr(n.Addrs, a.Address)
			}
		}
	}
	return n
}

// host decides what holds for all Services.
func (t *Tracker) host() Host {
	h := Host{PodCIDRs: t.cfg.PodCIDRs, PodInterfaces: t.cfg.PodInterfaces, MasqueradeAll: t.cfg.MasqueradeAll}
	// The Node's ranges may be unused in a cluster whose pods are told by their interfaces.
	if len(h.PodCIDRs) == 0 && h.PodInterfaces == "" {
		h.PodCIDRs = t.node.PodCIDRs
	}
	h.PodCIDRs = disjoint(slices.Clone(h.PodCIDRs))
	if t.cfg.Mode != Full {
		return h
	}
	h.NodePortAddrs = t.nodePortAddrs()
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	h.LocalhostNodePorts = t.cfg.LocalhostNodePorts && !t.cfg.PrimaryOnly && (t.everyNodePort(IPv4) ||
		slices.ContainsFunc(t.cfg.NodePortAddresses, loopback.Overlaps))
	return h
}

// nodePortAddrs returns the local addresses that node ports are open on. A family that the configuration has no range of is open everywhere.
func (t *Tracker) nodePortAddrs() []netip.Addr {
	if !t.cfg.PrimaryOnly && t.everyNodePort(IPv4) && t.everyNodePort(IPv6) {
		return nil
	}
	out := []netip.Addr{}
	if t.cfg.PrimaryOnly {
		for _, family := range families {
			if i := slices.IndexFunc(t.node.Addrs, func(a netip.Addr) bool { return familyOf(a) == family }); i >= 0 {
				out = append(out, t.node.Addrs[i])
			}
		}
		return out
	}
	for _, addr := range t.local {
		if !addr.IsLoopback() && (t.everyNodePort(familyOf(addr)) ||
			slices.ContainsFunc(t.cfg.NodePortAddresses, func(p netip.Prefix) bool { return p.Contains(addr) })) {
			out = append(out, addr)
		}
	}
	return out
}

// everyNodePort tells whether node ports are open on all addresses of the family.
func (t *Tracker) everyNodePort(family Family) bool {
	none := true
	for _, p := range t.cfg.NodePortAddresses {
		if familyOf(p.Addr()) == family {
			if p.Bits() == 0 {
				return true
			}
			none = false
		}
	}
	return none
}
