package layer2

import (
	"net/netip"
	"testing"
)

var (
	vip4 = netip.MustParseAddr("192.0.2.100")
	vip6 = netip.MustParseAddr("2001:db8::100")
	both = []Announcement{{Addr: vip4}, {Addr: vip6}}
)

func TestKernelOfAClientResolvesTheAddress(t *testing.T) {
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	ready(t, a, both, "eth0")
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.resolves("eth0", addr, node.mac("eth0"))
	}
}
