package layer2

import (
	"net/netip"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	usable       = link{index: 2, name: "eth0", mac: mine, up: true, carrier: true, broadcast: true, linkLocal: netip.MustParseAddr("fe80::1")}
	defaultRules = []*regexp.Regexp{DefaultExclude}
)

func TestUsableLinks(t *testing.T) {
	with := func(change func(*link)) link {
		l := usable
		change(&l)
		return l
	}
	for _, c := range []struct {
		name     string
		link     link
		arp, ndp bool
	}{
		{"ordinary", usable, true, true},
		{"loopback", with(func(l *link) { l.loopback = true }), false, false},
		{"down", with(func(l *link) { l.up = false }), false, false},
		{"NOARP", with(func(l *link) { l.noARP = true }), false, false},
		{"port of a bridge", with(func(l *link) { l.enslaved = true }), false, false},
		{"no MAC address", with(func(l *link) { l.mac = mac{} }), false, false},
		{"no broadcast", with(func(l *link) { l.broadcast = false }), false, true},
		{"no link-local address", with(func(l *link) { l.linkLocal = netip.Addr{} }), true, false},
		{"no carrier: the sockets stay", with(func(l *link) { l.carrier = false }), true, true},
		{"a bond", with(func(l *link) { l.name = "bond0" }), true, true},
		{"a VLAN", with(func(l *link) { l.name = "eth0.10" }), true, true},
		{"a bridge of the administrator", with(func(l *link) { l.name = "br-lan" }), true, true},
		{"systemd name", with(func(l *link) { l.name = "enp0s31f6" }), true, true},
		{"location name", with(func(l *link) { l.name = "lom1" }), true, true},
		{"docker0", with(func(l *link) { l.name = "docker0" }), false, false},
		{"docker network", with(func(l *link) { l.name = "br-0123456789ab" }), false, false},
		{"cni0", with(func(l *link) { l.name = "cni0" }), false, false},
		{"veth of a pod", with(func(l *link) { l.name = "veth1a2b3c4d" }), false, false},
		{"calico", with(func(l *link) { l.name = "cali12345678901" }), false, false},
		{"flannel", with(func(l *link) { l.name = "flannel.1" }), false, false},
		{"cilium", with(func(l *link) { l.name = "cilium_host" }), false, false},
		{"kube-proxy", with(func(l *link) { l.name = "kube-ipvs0" }), false, false},
		{"dummy", with(func(l *link) { l.name = "dummy0" }), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if why := c.link.unusableFor(unix.AF_INET, defaultRules); (why == "") != c.arp {
				t.Errorf("ARP: unusable because %q", why)
			}
			if why := c.link.unusableFor(unix.AF_INET6, defaultRules); (why == "") != c.ndp {
				t.Errorf("neighbour discovery: unusable because %q", why)
			}
		})
	}
}

func TestLinkLocalAddresses(t *testing.T) {
	first, second, global := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2"), netip.MustParseAddr("2001:db8::1")
	table := newLinks()
	plain := usable
	plain.linkLocal = netip.Addr{}
	step := func(name string, changed, wantChanged bool, want netip.Addr) {
		t.Helper()
		if changed != wantChanged {
			t.Errorf("%s: changed = %v", name, changed)
		}
		if got := table.byIndex[2].linkLocal; got != want {
			t.Errorf("%s: link-local address %s, want %s", name, got, want)
		}
	}
	step("an address before its link", table.setAddress(2, second, true, 0), false, netip.Addr{})
	step("the link", table.set(plain), true, second)
	step("the link again", table.set(plain), false, second)
	step("a tentative address", table.setAddress(2, first, true, unix.IFA_F_TENTATIVE), false, second)
	step("it is free", table.setAddress(2, first, true, unix.IFA_F_PERMANENT), true, first)
	step("told twice", table.setAddress(2, first, true, unix.IFA_F_PERMANENT), false, first)
	step("a global address", table.setAddress(2, global, true, 0), false, first)
	step("an IPv4 address", table.setAddress(2, vip4, true, 0), false, first)
	step("an address of another link", table.setAddress(3, first, false, 0), false, first)
	step("the first goes", table.setAddress(2, first, false, 0), true, second)
	step("the second is found to be a duplicate", table.setAddress(2, second, true, unix.IFA_F_DADFAILED), true, netip.Addr{})
	step("the link goes", table.remove(2), true, netip.Addr{})
	step("the link goes once more", table.remove(2), false, netip.Addr{})
}
