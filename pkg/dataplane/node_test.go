package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func parsed(texts ...string) []netip.Addr {
	out := []netip.Addr{}
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func TestNodeOf(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: "a"}}}
	node.Spec.PodCIDRs = []string{"10.244.1.0/24", "x", "fd00:1::/64"}
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "10.9.9.9"}, {Type: corev1.NodeExternalIP, Address: "203.0.113.1"},
		{Type: corev1.NodeInternalIP, Address: "172.16.1.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"},
	}
	want := Node{Zone: "a", PodCIDRs: prefixes("10.244.1.0/24", "fd00:1::/64"), Addrs: parsed("172.16.1.1", "fd00::1", "203.0.113.1")}
	if diff := cmp.Diff(want, NodeOf(node), exact); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	old := &corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.244.2.0/24"}}
	if got := NodeOf(old).PodCIDRs; !cmp.Equal(got, prefixes("10.244.2.0/24"), exact) {
		t.Errorf("of a Node with podCIDR only: %v", got)
	}

	tainted, dying := node.DeepCopy(), node.DeepCopy()
	tainted.Spec.Taints = []corev1.Taint{{Key: "other"}, {Key: taintScaleDown}}
	dying.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for what, c := range map[string]struct {
		node *corev1.Node
		want bool
	}{"lives": {node, false}, "tainted": {tainted, true}, "deleted": {dying, true}} {
		if got := NodeOf(c.node).Deleting; got != c.want {
			t.Errorf("%s: deleting %v", what, got)
		}
	}
}

func TestHost(t *testing.T) {
	node := Node{PodCIDRs: prefixes("fd00:1::/64", "10.244.1.0/24"), Addrs: parsed("172.16.1.1", "fd00::1", "203.0.113.1")}
	local := parsed("127.0.0.1", "::1", "203.0.113.1", "172.16.1.1", "fe80::1%eth0", "fd00::1")
	base := Host{PodCIDRs: prefixes("10.244.1.0/24", "fd00:1::/64")}
	with := func(change func(*Host)) Host {
		h := base
		change(&h)
		return h
	}
	for what, c := range map[string]struct {
		cfg  Config
		want Host
	}{
		"plain": {Config{Mode: Full}, base},
		"pods by configuration": {
			Config{Mode: Full, PodCIDRs: prefixes("10.244.1.0/24", "10.244.1.1/16", "10.244.0.0/16"), MasqueradeAll: true},
			Host{PodCIDRs: prefixes("10.244.0.0/16"), MasqueradeAll: true},
		},
		"pods by interface": {Config{Mode: Full, PodInterfaces: "cali"}, Host{PodInterfaces: "cali"}},
		"node ports in ranges of one family": {
			Config{Mode: Full, NodePortAddresses: prefixes("172.16.0.0/16", "127.0.0.0/8"), LocalhostNodePorts: true},
			with(func(h *Host) {
				h.NodePortAddrs, h.LocalhostNodePorts = parsed("172.16.1.1", "fd00::1", "fe80::1"), true
			}),
		},
		"node ports in ranges without the loopback": {
			Config{Mode: Full, NodePortAddresses: prefixes("172.16.0.0/16", "2001:db8::/32"), LocalhostNodePorts: true},
			with(func(h *Host) { h.NodePortAddrs = parsed("172.16.1.1") }),
		},
		"node ports nowhere": {
			Config{Mode: Full, NodePortAddresses: prefixes("192.0.2.0/24", "2001:db8::/32")}, with(func(h *Host) { h.NodePortAddrs = parsed() }),
		},
		"node ports everywhere": {
			Config{Mode: Full, NodePortAddresses: prefixes("0.0.0.0/0", "172.16.0.0/16"), LocalhostNodePorts: true},
			with(func(h *Host) { h.LocalhostNodePorts = true }),
		},
		"node ports on the primary addresses": {
			Config{Mode: Full, PrimaryOnly: true, LocalhostNodePorts: true}, with(func(h *Host) { h.NodePortAddrs = parsed("172.16.1.1", "fd00::1") }),
		},
		"no node ports in LoadBalancer mode": {
			Config{Mode: LoadBalancer, PrimaryOnly: true, NodePortAddresses: prefixes("172.16.0.0/16"), LocalhostNodePorts: true}, base,
		},
	} {
		t.Run(what, func(t *testing.T) {
			tracker := NewTracker(c.cfg)
			tracker.SetNode(node)
			tracker.SetLocalAddrs(local)
			m := &Model{}
			_, host := tracker.Update(m)
			if diff := cmp.Diff(c.want, m.Host, exact); !host || diff != "" {
				t.Errorf("changed %v, -want +got:\n%s", host, diff)
			}
			if _, host := tracker.Update(m); host {
				t.Error("changed again")
			}
		})
	}
}

func TestHostFollowsTheAddresses(t *testing.T) {
	tracker := NewTracker(Config{Mode: Full, NodePortAddresses: prefixes("172.16.0.0/16", "2001:db8::/32")})
	setService(tracker, newService())
	m := model(tracker)
	tracker.SetLocalAddrs(parsed("172.16.1.2", "10.0.0.1", "172.16.1.2"))
	if changed, host := tracker.Update(m); !host || len(changed) > 0 || !cmp.Equal(m.Host.NodePortAddrs, parsed("172.16.1.2"), exact) {
		t.Errorf("host %v, changed %v, got %v", host, changed, m.Host.NodePortAddrs)
	}
	tracker.SetLocalAddrs(parsed("172.16.1.2", "10.0.0.2"))
	if _, host := tracker.Update(m); host {
		t.Error("an address that no range has changed the host")
	}
}
