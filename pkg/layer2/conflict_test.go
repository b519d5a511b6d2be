package layer2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

// ours tells the MAC addresses of the hosts.
func ours(hosts ...*host) func(net.HardwareAddr) bool {
	var macs []string
	for _, h := range hosts {
		macs = append(macs, h.mac("eth0"))
	}
	return func(m net.HardwareAddr) bool { return slices.Contains(macs, m.String()) }
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%v without %s", patience, what)
		panic("unreachable")
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	first, second := newLAN(t), newLAN(t)
	node := newNode(t, first, "node")
	second.connect(node, "eth1")
	holder := newClient(t, second)
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(fence4, fence6), "eth0", "eth1")
	for _, c := range []struct {
		name       string
		addr       netip.Addr
		interfaces []string
		ours       func(net.HardwareAddr) bool
		conflict   bool
	}{
		{"held, IPv4", client4, nil, nil, true},
		{"held, IPv6", client6, nil, nil, true},
		{"held by one of ours, IPv4", client4, nil, ours(holder), false},
		{"held by one of ours, IPv6", client6, nil, ours(holder), false},
		{"held on an interface that is not selected, IPv4", client4, []string{"eth0"}, nil, false},
		{"held on an interface that is not selected, IPv6", client6, []string{"eth0"}, nil, false},
		{"free, IPv4", vip4, nil, nil, false},
		{"free, IPv6", vip6, nil, nil, false},
		{"announced by this node, IPv4", fence4, nil, nil, false},
		{"announced by this node, IPv6", fence6, nil, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := a.Probe(t.Context(), c.addr, c.interfaces, c.ours)
			if err != nil {
				t.Fatal(err)
			}
			if (got != nil) != c.conflict {
				t.Fatalf("conflict %+v", got)
			}
			if c.conflict && (got.Addr != c.addr || got.Interface != "eth1" || got.MAC.String() != holder.mac("eth0")) {
				t.Errorf("conflict %+v, want that with %s on eth1", got, holder.mac("eth0"))
			}
		})
	}
	t.Run("nowhere to ask", func(t *testing.T) {
		_, err := a.Probe(t.Context(), vip4, []string{"eth7"}, nil)
		var typed *Error
		if !errors.As(err, &typed) || typed.Reason != ReasonNoInterface {
			t.Errorf("error %v", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Probe(ctx, vip4, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// Not parallel: the kernel's queue of received packets is one for all namespaces, and has room for a thousand.
func TestManyProbesAtOnce(t *testing.T) {
	n := newLAN(t)
	node := newNode(t, n, "node")
	newClient(t, n)
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(fence4, fence6), "eth0")
	var all sync.WaitGroup
	for i := range 500 {
		for _, format := range []string{"198.51.100.%d", "192.0.2.%d", "2001:db8:0:%d::10", "2001:db8::%x"} {
			addr, err := netip.ParseAddr(fmt.Sprintf(format, i))
			if err != nil {
				continue // 256 and above
			}
			all.Go(func() {
				got, err := a.Probe(t.Context(), addr, nil, nil)
				if held := addr == client4 || addr == client6; err != nil || (got != nil) != held {
					t.Errorf("%s: %+v, %v", addr, got, err)
				}
			})
		}
	}
	all.Wait()
}

func TestProbesForTheSameAddress(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	nodes := []*host{newNode(t, n, "node1"), newNode(t, n, "node2")}
	var announcers []*Announcer
	for _, h := range nodes {
		a, _ := h.announcer(Config{})
		ready(t, a, quietly(vip4, vip6), "eth0")
		a.Sync(nil)
		announcers = append(announcers, a)
	}
	for _, c := range []struct {
		name     string
		ours     func(net.HardwareAddr) bool
		conflict bool
	}{
		{"strangers", nil, true},
		{"speakers of one cluster", ours(nodes...), false},
	} {
		for _, addr := range []netip.Addr{vip4, vip6} {
			t.Run(c.name+" "+addr.String(), func(t *testing.T) {
				found := make([]*Conflict, 2)
				var both sync.WaitGroup
				for i, a := range announcers {
					both.Go(func() {
						var err error
						if found[i], err = a.Probe(t.Context(), addr, nil, c.ours); err != nil {
							t.Error(err)
						}
					})
				}
				both.Wait()
				// Each of the two hears at least the other's last probe, or had heard one before and stopped.
				if conflict := found[0] != nil || found[1] != nil; conflict != c.conflict {
					t.Errorf("conflicts %+v, %+v", found[0], found[1])
				}
			})
		}
	}
}

func TestConflictAfterTheClaim(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	node, peer, stranger := newNode(t, n, "node"), newNode(t, n, "peer"), newNode(t, n, "stranger")
	a, _ := node.announcer(Config{Ours: ours(peer)})
	announced := quietly(vip4, vip6, fence4, fence6)
	ready(t, a, announced, "eth0")
	foreign, friendly := stranger.tap("eth0"), peer.tap("eth0")
	// conflicts lets a host make claims, and returns the packets in which the node claimed the address thereupon.
	conflicts := func(from *tap, addr, fence netip.Addr) (defences [][]byte) {
		t.Helper()
		me := identity{mac: from.mac, linkLocal: client6}
		for _, frame := range announcementOf(addr, me) {
			defences = append(defences, from.answers(frame, addr, fence)...)
		}
		return slices.DeleteFunc(defences, func(frame []byte) bool { return mac(frame[6:12]).String() != node.mac("eth0") })
	}
	for addr, fence := range map[netip.Addr]netip.Addr{vip4: fence4, vip6: fence6} {
		if got := conflicts(friendly, addr, fence); len(got) > 0 {
			t.Errorf("%s defended against a speaker of the same cluster", addr)
		}
		if got := conflicts(foreign, addr, fence); len(got) == 0 {
			t.Errorf("%s not defended", addr)
		} else if to := mac(got[0][0:6]); to != broadcast && to != multicastMAC(allNodes) {
			t.Errorf("%s defended towards %s only", addr, to)
		}
		got := await(t, "a conflict", a.Conflicts())
		if want := foreign.mac.String(); got.Addr != addr || got.Interface != "eth0" || got.MAC.String() != want {
			t.Errorf("conflict %+v, want that of %s with %s", got, addr, want)
		}
		// Once more within 10 s.
		if got := conflicts(foreign, addr, fence); len(got) > 0 {
			t.Errorf("%s defended again", addr)
		}
		select {
		case got := <-a.Conflicts():
			t.Errorf("conflict %+v reported again", got)
		default:
		}
	}
	// A foreign host's own detection is answered, which is what keeps it from the address; it claims nothing.
	probe := icmpFrame(&ndp.NeighborSolicitation{TargetAddress: vip6}, multicastMAC(solicitedNode(vip6)), foreign.mac, netip.IPv6Unspecified(), solicitedNode(vip6))
	if got := foreign.answers(probe, vip6, fence6); len(got) != 1 {
		t.Errorf("%d answers to duplicate address detection", len(got))
	}
}

func TestKernelRefusesAnAddressThatIsAnnounced(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	node, other := newNode(t, n, "node"), newNode(t, n, "other")
	a, _ := node.announcer(Config{})
	ready(t, a, quietly(vip6), "eth0")
	other.sysctl("net/ipv6/conf/eth0/accept_dad", "1")
	other.sysctl("net/ipv6/conf/eth0/dad_transmits", "10")
	other.addAddressWith("eth0", vip6.String()+"/64", 0)
	eventually(t, "the other host's kernel gives the address up", func() bool { return other.flags("eth0", vip6)&unix.IFA_F_DADFAILED != 0 })
}
