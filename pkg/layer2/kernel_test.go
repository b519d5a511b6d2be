package layer2

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These tests let real kernels, each in a network namespace of its own, ask, and look at what they then know of their neighbours.

var (
	vip4   = netip.MustParseAddr("192.0.2.100")
	vip6   = netip.MustParseAddr("2001:db8::100")
	fence4 = netip.MustParseAddr("192.0.2.101")
	fence6 = netip.MustParseAddr("2001:db8::101")
)

func quietly(addrs ...netip.Addr) (all []Announcement) {
	for _, a := range addrs {
		all = append(all, Announcement{Addr: a})
	}
	return all
}

func TestKernelResolvesTheAddress(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4, vip6), "eth0")
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.resolves("eth0", addr, node.mac("eth0"))
	}
}

func TestKernelVerifiesTheAddressByUnicast(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4, vip6), "eth0")
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.resolves("eth0", addr, node.mac("eth0"))
		tap := node.tap("eth0")
		// In this state the kernel asks by unicast, and gives the neighbour up if that is not answered.
		client.setNeighbour("eth0", addr, node.mac("eth0"), netlink.NUD_PROBE)
		for {
			h, frame := tap.next()
			if h.asks != addr {
				continue
			}
			if got := mac(frame[0:6]).String(); got != node.mac("eth0") {
				t.Errorf("%s: asked at %s; this test wants a unicast question", addr, got)
			}
			break
		}
		eventually(t, fmt.Sprintf("%s is reachable", addr), func() bool {
			_, state := client.neighbour("eth0", addr)
			return state == netlink.NUD_REACHABLE
		})
	}
}

func TestSolicitations(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip6, fence6), "eth0")
	tap := client.tap("eth0")
	owner := toMAC(node.link("eth0").Attrs().HardwareAddr)
	group := solicitedNode(vip6)
	for _, c := range []struct {
		name       string
		options    []ndp.Option
		unicast    bool
		from       netip.Addr
		wantTo     mac
		wantDestIP netip.Addr
		wantFlags  byte
	}{
		{"unicast without source link-layer address", nil, true, client6, tap.mac, client6, 0x60},
		{"unicast with source link-layer address", []ndp.Option{tap.option()}, true, client6, tap.mac, client6, 0x60},
		{"multicast without source link-layer address", nil, false, client6, tap.mac, client6, 0x60},
		{"multicast with source link-layer address", []ndp.Option{tap.option()}, false, client6, tap.mac, client6, 0x60},
		{"duplicate address detection", nil, false, netip.IPv6Unspecified(), multicastMAC(allNodes), allNodes, 0x20},
	} {
		t.Run(c.name, func(t *testing.T) {
			to, destination := multicastMAC(group), group
			if c.unicast {
				to, destination = owner, vip6
			}
			question := icmpFrame(&ndp.NeighborSolicitation{TargetAddress: vip6, Options: c.options}, to, tap.mac, c.from, destination)
			got := tap.answers(question, vip6, fence6)
			if len(got) != 1 {
				t.Fatalf("%d answers, want 1", len(got))
			}
			f := got[0]
			if to := mac(f[0:6]); to != c.wantTo {
				t.Errorf("answer to %s, want %s", to, c.wantTo)
			}
			if to := netip.AddrFrom16([16]byte(f[ethernetHeader+24:])); to != c.wantDestIP {
				t.Errorf("answer to %s, want %s", to, c.wantDestIP)
			}
			if flags := f[ethernetHeader+ipv6Header+4]; flags != c.wantFlags {
				t.Errorf("flags %#x, want %#x", flags, c.wantFlags)
			}
		})
	}
}

func TestWhatIsNotAnswered(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	other4, other6 := netip.MustParseAddr("192.0.2.102"), netip.MustParseAddr("2001:db8::102")
	ready(t, a, quietly(vip4, vip6, fence4, fence6, other4, other6), "eth0")
	a.Sync(quietly(vip4, vip6, fence4, fence6))
	tap := client.tap("eth0")
	group := solicitedNode(vip6)
	// IEEE 802.1Q tag of VLAN 7.
	tagged := func(frame []byte) []byte {
		return slices.Concat(frame[:12], []byte{0x81, 0x00, 0x00, 0x07}, frame[12:])
	}
	for _, c := range []struct {
		name        string
		question    []byte
		addr, fence netip.Addr
	}{
		{"address withdrawn, ARP", tap.ask(other4), other4, fence4},
		{"address withdrawn, solicitation", tap.ask(other6), other6, fence6},
		{"another host's MAC address, ARP", tap.request(mac{2, 9}, client4, vip4), vip4, fence4},
		{"VLAN that the node does not carry, ARP", tagged(tap.ask(vip4)), vip4, fence4},
		{"VLAN that the node does not carry, solicitation", tagged(tap.ask(vip6)), vip6, fence6},
		{"solicitation with a wrong checksum", append(tap.ask(vip6)[:60], 0xff), vip6, fence6},
		{"duplicate address detection with an option that it must not have",
			icmpFrame(solicitation(tap.option()), multicastMAC(group), tap.mac, netip.IPv6Unspecified(), group), vip6, fence6},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := tap.answers(c.question, c.addr, c.fence); len(got) > 0 {
				t.Errorf("%d answers, the first %x", len(got), got[0])
			}
		})
	}
}

func TestSelectedInterfaces(t *testing.T) {
	t.Parallel()
	first, second := newLAN(t), newLAN(t)
	node := newNode(t, first, "node")
	second.connect(node, "eth1")
	clients := map[string]*tap{"eth0": newClient(t, first).tap("eth0"), "eth1": newClient(t, second).tap("eth0")}
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4, vip6, fence4, fence6), "eth0", "eth1")
	for _, c := range []struct {
		name       string
		interfaces []string
		want       []string
	}{
		{"all", nil, []string{"eth0", "eth1"}},
		{"the first", []string{"eth0"}, []string{"eth0"}},
		{"the other instead", []string{"eth1"}, []string{"eth1"}},
		{"both by name", []string{"eth1", "eth0"}, []string{"eth0", "eth1"}},
		{"one that does not exist besides", []string{"eth7", "eth0"}, []string{"eth0"}},
		{"none that exists", []string{"eth7"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			statuses := a.Sync([]Announcement{{Addr: vip4, Interfaces: c.interfaces}, {Addr: vip6, Interfaces: c.interfaces}, {Addr: fence4}, {Addr: fence6}})
			for i, addr := range []netip.Addr{vip4, vip6} {
				if d := cmp.Diff(c.want, statuses[i].Interfaces); d != "" {
					t.Errorf("%s: status (-want +got):\n%s", addr, d)
				}
				if failed := statuses[i].Err != nil; failed != (c.want == nil) {
					t.Errorf("%s: error %v", addr, statuses[i].Err)
				}
			}
			for name, tap := range clients {
				for addr, fence := range map[netip.Addr]netip.Addr{vip4: fence4, vip6: fence6} {
					got := tap.answers(tap.ask(addr), addr, fence)
					// Those to all are announcements on an interface that was gained.
					answered := slices.ContainsFunc(got, func(frame []byte) bool { return mac(frame[0:6]) == tap.mac })
					if answered != slices.Contains(c.want, name) {
						t.Errorf("%s answered on %s: %v", addr, name, answered)
					}
					for _, frame := range got {
						if from := mac(frame[6:12]).String(); from != node.mac(name) {
							t.Errorf("%s answered on %s with the MAC address %s", addr, name, from)
						}
					}
				}
			}
		})
	}
}

func TestGainedInterfaceIsTold(t *testing.T) {
	t.Parallel()
	first, second := newLAN(t), newLAN(t)
	node, client := newNode(t, first, "node"), newClient(t, second)
	second.connect(node, "eth1")
	a, _ := node.announcer(Config{})
	on := func(name string) []Announcement {
		return []Announcement{{Addr: vip4, Interfaces: []string{name}}, {Addr: vip6, Interfaces: []string{name}}}
	}
	ready(t, a, on("eth0"), "eth0")
	ready(t, a, quietly(fence4, fence6), "eth0", "eth1")
	a.Sync(on("eth0"))
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.setNeighbour("eth0", addr, theirs.String(), netlink.NUD_STALE)
	}
	a.Sync(on("eth1"))
	for _, addr := range []netip.Addr{vip4, vip6} {
		eventually(t, fmt.Sprintf("the client has learnt %s unasked", addr), func() bool {
			got, _ := client.neighbour("eth0", addr)
			return got == node.mac("eth1")
		})
	}
}

func TestNobodyElseWakesTheSockets(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip4, vip6, fence4, fence6), "eth0")
	tap := client.tap("eth0")
	tap.answered(vip4, fence4)
	tap.answered(vip6, fence6)
	received := func() (total int) {
		a.mu.RLock()
		defer a.mu.RUnlock()
		for _, e := range a.endpoints {
			s, err := e.conn.Stats()
			if err != nil {
				t.Fatal(err)
			}
			total += int(s.Packets)
		}
		return total
	}
	received() // starts counting anew
	tap.send(tap.request(broadcast, client4, netip.MustParseAddr("192.0.2.1")))
	client.poke(netip.MustParseAddr("192.0.2.255"))
	client.poke(allNodes.WithZone("eth0"))
	tap.answered(vip4, fence4)
	tap.answered(vip6, fence6)
	if got := received(); got != 4 {
		t.Errorf("%d packets received, want the 4 questions for announced addresses", got)
	}
}

// Not parallel: see TestManyProbesAtOnce.
func TestMoreGroupsThanOneSocketHolds(t *testing.T) {
	n := newLAN(t)
	node := newNode(t, n, "node")
	a, _ := node.announcer(Config{})
	const count = 2500 // Linux allows 2340 with the usual net.core.optmem_max of 128 KiB
	var addrs []netip.Addr
	for i := range count {
		addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8::1:%x", i)))
	}
	// Shares its group with the first.
	addrs = append(addrs, netip.MustParseAddr("2001:db8:0:1::1:0"))
	ready(t, a, quietly(addrs...), "eth0")
	joined := func(count int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d groups joined", count), func() bool { return len(node.groups("eth0", "ff02::1:ff01:")) == count })
	}
	joined(count)
	a.Sync(quietly(addrs[count:]...))
	joined(1)
	a.Sync(quietly(addrs...))
	joined(count)
	a.Sync(nil)
	joined(0)
}

func TestMissingPrivilege(t *testing.T) {
	t.Parallel()
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread has lost its capabilities
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			errs <- fmt.Errorf("capset: %w", err)
			return
		}
		errs <- New(Config{}).Run(context.Background())
	}()
	err := <-errs
	if err == nil {
		t.Fatal("no error without CAP_NET_RAW")
	}
	for _, part := range []string{"CAP_NET_RAW", "securityContext.capabilities.add"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not mention %s", err, part)
		}
	}
}

// setNeighbour sets what the host's kernel knows of a neighbour.
func (h *host) setNeighbour(name string, addr netip.Addr, mac string, state int) {
	h.t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		h.t.Fatal(err)
	}
	l := h.link(name)
	h.must(func() error {
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: familyOf(addr), State: state, IP: addr.AsSlice(), HardwareAddr: hw})
	})
}

// groups returns the multicast groups with that prefix which the kernel has joined on the interface.
func (h *host) groups(name, prefix string) (all []netip.Addr) {
	h.t.Helper()
	h.must(func() error {
		f, err := os.Open("/proc/thread-self/net/igmp6")
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			b := frameOf(h.t, fields[2])
			if group := netip.AddrFrom16([16]byte(b)); fields[1] == name && strings.HasPrefix(group.String(), prefix) {
				all = append(all, group)
			}
		}
		return nil
	})
	return all
}
