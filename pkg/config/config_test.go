package config

import (
	"net/netip"
	"slices"
	"testing"
)

func TestPoolFields(t *testing.T) {
	cfg, _ := Parse(resources(t, `pool dmz-1 1 {addresses: [192.0.2.0/30]}
		pool b 1 {addresses: [192.0.2.4/30], autoAssign: false, avoidBuggyIPs: true, shareAcrossNamespaces: true, serviceAllocation: {priority: 7, namespaces: [shop]}}`))
	dmz, b := cfg.Pool("dmz-1"), cfg.Pool("b")
	if !dmz.AutoAssign || dmz.AvoidBuggyIPs || dmz.Allocation != nil || dmz.ShareAcrossNamespaces || dmz.Labels["network"] != "dmz" {
		t.Errorf("defaults: %+v", dmz)
	}
	if b.AutoAssign || !b.AvoidBuggyIPs || !b.ShareAcrossNamespaces || b.Allocation.Priority != 7 || !slices.Equal(b.Allocation.Namespaces, []string{"shop"}) {
		t.Errorf("all set: %+v", b)
	}
}

func TestPoolOf(t *testing.T) {
	cfg, _ := Parse(resources(t, `pool a 1 {addresses: [192.0.2.0/30, 192.0.2.10-192.0.2.20, "2001:db8::/64"]}
		pool b 1 {addresses: [192.0.2.5-192.0.2.9]}`))
	for addr, want := range map[string]string{
		"192.0.2.0": "a", "192.0.2.3": "a", "192.0.2.4": "", "192.0.2.5": "b", "192.0.2.9": "b", "192.0.2.10": "a", "192.0.2.20": "a",
		"192.0.2.21": "", "2001:db8::": "a", "2001:db8::ffff:0:0:0": "a", "2001:db8:0:1::": "", "::": "", "255.255.255.255": "",
	} {
		got := ""
		if p := cfg.PoolOf(netip.MustParseAddr(addr)); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("PoolOf(%s) is %q, want %q", addr, got, want)
		}
	}
	if p := cfg.Pool("c"); p != nil {
		t.Errorf("Pool(c) is %v", p)
	}
}
