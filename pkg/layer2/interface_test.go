package layer2

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listed waits until the announcer has exactly these interfaces, and makes sure that it says so on Changed.
func listed(t *testing.T, a *Announcer, names ...string) {
	t.Helper()
	want := strings.Join(names, ",")
	for {
		var got []string
		for _, i := range a.Interfaces() {
			got = append(got, i.Name)
		}
		if strings.Join(got, ",") == want {
			return
		}
		await(t, fmt.Sprintf("a change of the interfaces %v to %v", got, names), a.Changed())
	}
}

func TestInterfaceAppearsLater(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newHost(t, "node")
	a, _ := node.announcer(Config{})
	eventually(t, "the announcer runs", func() bool {
		err, ok := a.Sync(quietly(vip4, vip6))[0].Err.(*Error)
		return ok && err.Reason == ReasonNoInterface && strings.Contains(err.Message, "not excluded by name")
	})
	tap := client.tap("eth0")
	// The neighbours may know the address at another place.
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.setNeighbour("eth0", addr, theirs.String(), netlink.NUD_STALE)
	}
	n.plug(node, "eth0")
	node.up("eth0")
	listed(t, a, "eth0")
	for _, addr := range []netip.Addr{vip4, vip6} {
		eventually(t, fmt.Sprintf("the client has learnt %s unasked", addr), func() bool {
			got, _ := client.neighbour("eth0", addr)
			return got == node.mac("eth0")
		})
	}
	ready(t, a, quietly(vip4, vip6, fence6), "eth0")
	if !tap.answered(vip6, fence6) {
		t.Error("solicitation not answered")
	}
	eventually(t, "the solicited-node groups are joined", func() bool { return len(node.groups("eth0", "ff02::1:ff00:1")) == 2 })
}

func TestInterfaceComesAndGoes(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	announced := quietly(vip4, vip6)
	ready(t, a, announced, "eth0")
	works := func(name string) {
		t.Helper()
		ready(t, a, announced, name)
		for _, addr := range []netip.Addr{vip4, vip6} {
			client.resolves("eth0", addr, node.mac(name))
		}
	}
	t.Run("down and up", func(t *testing.T) {
		for range 10 {
			node.down("eth0")
			listed(t, a)
			node.up("eth0")
			works("eth0")
		}
	})
	t.Run("flapping faster than it can be followed", func(t *testing.T) {
		for range 50 {
			node.down("eth0")
			node.up("eth0")
		}
		works("eth0")
	})
	t.Run("renamed", func(t *testing.T) {
		l := node.link("eth0")
		node.down("eth0")
		node.must(func() error { return netlink.LinkSetName(l, "lan0") })
		node.up("lan0")
		works("lan0")
	})
	t.Run("renamed to an excluded name and back", func(t *testing.T) {
		l := node.link("lan0")
		node.down("lan0")
		node.must(func() error { return netlink.LinkSetName(l, "veth0") })
		node.up("veth0")
		listed(t, a)
		node.down("veth0")
		node.must(func() error { return netlink.LinkSetName(l, "eth0") })
		node.up("eth0")
		works("eth0")
	})
	t.Run("deleted and made again", func(t *testing.T) {
		l := node.link("eth0")
		node.must(func() error { return netlink.LinkDel(l) })
		listed(t, a)
		n.plug(node, "eth0")
		node.up("eth0")
		works("eth0")
	})
	t.Run("a port of a bridge", func(t *testing.T) {
		l := node.link("eth0")
		node.must(func() error {
			return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-lan", HardwareAddr: mac{2, 8, 8, 8, 8, 8}.hardware()}})
		})
		bridge := node.link("br-lan")
		node.must(func() error { return netlink.LinkSetMaster(l, bridge) })
		node.up("br-lan")
		works("br-lan")
		node.must(func() error { return netlink.LinkDel(bridge) })
		works("eth0")
	})
}

func TestInterfaceGetsAnotherMACAddress(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4, vip6), "eth0")
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.resolves("eth0", addr, node.mac("eth0"))
	}
	l := node.link("eth0")
	node.must(func() error { return netlink.LinkSetHardwareAddr(l, mac{2, 7, 7, 7, 7, 7}.hardware()) })
	for _, addr := range []netip.Addr{vip4, vip6} {
		eventually(t, fmt.Sprintf("the client has learnt %s unasked", addr), func() bool {
			got, _ := client.neighbour("eth0", addr)
			return got == "02:07:07:07:07:07"
		})
	}
}

// When messages about interfaces are lost, an endpoint may not learn that its interface was down for a moment.
func TestSocketOutlivesDownAndUp(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	l := newLink(node.link("eth0").Attrs())
	var e *endpoint
	node.must(func() (err error) { e, err = openEndpoint(l, unix.AF_INET); return err })
	if err := e.setSpan(span{vip4, vip4}); err != nil {
		t.Fatal(err)
	}
	hears, ended := make(chan heard, 1), make(chan error, 1)
	go func() {
		ended <- e.read(func(h heard) {
			select {
			case hears <- h:
			default:
			}
		})
	}()
	node.down("eth0")
	node.up("eth0")
	tap := client.tap("eth0")
	// The switch may not forward at once.
	eventually(t, "the question is heard", func() bool {
		tap.send(tap.ask(vip4))
		select {
		case h := <-hears:
			return h.asks == vip4
		case <-time.After(10 * time.Millisecond):
			return false
		}
	})
	e.close()
	if err := await(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

func TestCableCut(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newHost(t, "node")
	port := n.connect(node, "eth0")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4, vip6), "eth0")
	n.down(port)
	listed(t, a)
	for _, s := range a.Sync(quietly(vip4, vip6)) {
		if len(s.Interfaces) > 0 || s.Err == nil || !strings.Contains(s.Err.Error(), "eth0: it has no carrier") {
			t.Errorf("%s without carrier: on %v, error %v", s.Addr, s.Interfaces, s.Err)
		}
	}
	if _, err := a.Probe(t.Context(), vip4, nil, nil); err == nil {
		t.Error("a probe that nobody can hear finds the address free")
	}
	tap := client.tap("eth0")
	n.up(port)
	listed(t, a, "eth0")
	for addr, fence := range map[netip.Addr]netip.Addr{vip4: fence4, vip6: fence6} {
		a.Sync(append(quietly(vip4, vip6), Announcement{Addr: fence, Burst: 1}))
		if got := tap.claimsBefore(addr, fence); len(got) > 0 {
			t.Errorf("%d announcements of %s, which may be another node's by now", len(got), addr)
		}
	}
}

func TestCablePluggedInLater(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newHost(t, "node")
	port := n.plug(node, "eth0")
	n.down(port)
	node.up("eth0")
	a, _ := node.announcer(Config{})
	eventually(t, "the socket is open", func() bool {
		a.Sync(quietly(vip4, vip6))
		a.mu.RLock()
		defer a.mu.RUnlock()
		return len(a.endpoints) > 0
	})
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.setNeighbour("eth0", addr, theirs.String(), netlink.NUD_STALE)
	}
	n.up(port)
	for _, addr := range []netip.Addr{vip4, vip6} {
		eventually(t, fmt.Sprintf("the client has learnt %s unasked", addr), func() bool {
			got, _ := client.neighbour("eth0", addr)
			return got == node.mac("eth0")
		})
	}
}

func TestLinkLocalAddressIsAwaited(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newHost(t, "node")
	node.sysctl("net/ipv6/conf/default/addr_gen_mode", "1") // no link-local address by itself
	n.plug(node, "eth0")
	node.up("eth0")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4), "eth0")
	refused := func(why string) {
		t.Helper()
		s := a.Sync(quietly(vip4, vip6))
		if len(s[0].Interfaces) != 1 || s[0].Err != nil {
			t.Errorf("IPv4 %s: on %v, error %v", why, s[0].Interfaces, s[0].Err)
		}
		if len(s[1].Interfaces) != 0 || s[1].Err == nil || !strings.Contains(s[1].Err.Error(), "link-local") {
			t.Errorf("IPv6 %s: on %v, error %v", why, s[1].Interfaces, s[1].Err)
		}
	}
	refused("without link-local address")
	node.sysctl("net/ipv6/conf/eth0/accept_dad", "1")
	node.addAddressWith("eth0", "fe80::77/64", 0)
	refused("while the link-local address is tentative")
	// The kernel's own detection takes a second or two.
	await(t, "a change of the interfaces", a.Changed())
	ready(t, a, quietly(vip4, vip6), "eth0")
	client.resolves("eth0", vip6, node.mac("eth0"))
}

func TestBrokenSocketHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	first, second := newLAN(t), newLAN(t)
	node := newNode(t, first, "node")
	second.connect(node, "eth1")
	a, _ := node.announcer(Config{})
	announced := quietly(vip4, vip6, fence4, fence6)
	ready(t, a, announced, "eth0", "eth1")
	taps := map[string]*tap{"eth0": newClient(t, first).tap("eth0"), "eth1": newClient(t, second).tap("eth0")}
	index := node.link("eth0").Attrs().Index
	for _, c := range []struct {
		family      int
		addr, fence netip.Addr
	}{
		{unix.AF_INET, vip4, fence4},
		{unix.AF_INET6, vip6, fence6},
	} {
		a.mu.RLock()
		e := a.endpoints[endpointKey{index, c.family}]
		a.mu.RUnlock()
		e.conn.Close()
		eventually(t, "the failure is reported", func() bool {
			for _, s := range a.Sync(announced) {
				if s.Addr == c.addr {
					err, ok := s.Err.(*Error)
					return ok && err.Reason == ReasonSocketFailed && len(s.Interfaces) == 1
				}
			}
			return false
		})
		if !taps["eth1"].answered(c.addr, c.fence) {
			t.Errorf("%s not answered on the other interface", c.addr)
		}
		ready(t, a, announced, "eth0", "eth1")
		if !taps["eth0"].answered(c.addr, c.fence) {
			t.Errorf("%s not answered when the socket was opened again", c.addr)
		}
	}
}
