package conntrack

import (
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// enter puts the test into a network namespace of its own.
func enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare (this test needs root): %v", err)
	}
}

// flow puts an entry in the kernel's table: what client sends to dst comes to server.
func flow(t *testing.T, protocol uint8, client, dst, server string) {
	t.Helper()
	c, d, s := at(client), at(dst), at(server)
	family := netlink.InetFamily(unix.AF_INET)
	if c.Addr().Is6() {
		family = unix.AF_INET6
	}
	tuple := func(src, dst netip.AddrPort) netlink.IPTuple {
		return netlink.IPTuple{Protocol: protocol, SrcIP: net.IP(src.Addr().AsSlice()), SrcPort: src.Port(), DstIP: net.IP(dst.Addr().AsSlice()), DstPort: dst.Port()}
	}
	f := &netlink.ConntrackFlow{FamilyType: uint8(family), Forward: tuple(c, d), Reverse: tuple(s, c), TimeOut: 600}
	if protocol == unix.IPPROTO_TCP {
		f.ProtoInfo = &netlink.ProtoInfoTCP{State: nl.TCP_CONNTRACK_ESTABLISHED}
	}
	if err := netlink.ConntrackCreate(netlink.ConntrackTable, family, f); err != nil {
		t.Fatalf("create an entry: %v", err)
	}
}

func left(t *testing.T) (out []string) {
	t.Helper()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			src, _ := netip.AddrFromSlice(f.Forward.SrcIP)
			out = append(out, nl.L4ProtoMap[f.Forward.Protocol]+" "+netip.AddrPortFrom(src, f.Forward.SrcPort).String())
		}
	}
	slices.Sort(out)
	return out
}

func TestCleanDeletesStaleFlowsOnly(t *testing.T) {
	enter(t)
	const tcp, udpProto = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	flow(t, udpProto, "10.1.0.5:1001", "10.96.0.10:53", "10.1.0.1:53")
	flow(t, udpProto, "10.1.0.5:1002", "10.96.0.10:53", "10.1.0.9:53")   // stale
	flow(t, udpProto, "10.1.0.5:1003", "10.96.0.10:53", "10.96.0.10:53") // stale
	flow(t, tcp, "10.1.0.5:1004", "10.96.0.10:53", "10.1.0.9:53")
	flow(t, udpProto, "10.1.0.5:1005", "203.0.113.5:30053", "203.0.113.5:30053")
	flow(t, udpProto, "10.1.0.5:1006", "192.0.2.1:30053", "10.1.0.9:53") // stale
	flow(t, udpProto, "[fd01::5]:1007", "[fd00::10]:53", "[fd01::1]:53")
	flow(t, udpProto, "[fd01::5]:1008", "[fd00::10]:53", "[fd01::9]:53") // stale
	open := func(a netip.Addr) bool { return a == at("192.0.2.1:0").Addr() }

	s := New()
	s.Serve(udp(dataplane.IPv4, append(clusterIP("10.96.0.10:53"), dataplane.Frontend{Kind: dataplane.NodePort, Port: 30053}), "10.1.0.1:53"))
	s.Serve(udp(dataplane.IPv6, clusterIP("[fd00::10]:53"), "[fd01::1]:53"))
	if n, err := Clean(s, open); n != 4 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	want := []string{"tcp 10.1.0.5:1004", "udp 10.1.0.5:1001", "udp 10.1.0.5:1005", "udp [fd01::5]:1007"}
	if got := left(t); !slices.Equal(got, want) {
		t.Errorf("left:\n got %q\nwant %q", got, want)
	}
	if n, err := Clean(s, open); n != 0 || err != nil {
		t.Errorf("deleted %d at the second time, %v", n, err)
	}
}

func TestCleanOfALargeTable(t *testing.T) {
	enter(t)
	const entries = 20000
	for i := range entries {
		server := "10.1.0.1:53"
		if i%2 == 1 {
			server = "10.1.0.9:53"
		}
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 1000)
		flow(t, unix.IPPROTO_UDP, client.String(), "10.96.0.10:53", server)
	}
	s := New()
	s.Serve(udp(dataplane.IPv4, clusterIP("10.96.0.10:53"), "10.1.0.1:53"))
	start := time.Now()
	n, err := Clean(s, nil)
	t.Logf("%d of %d deleted in %s", n, entries, time.Since(start))
	if n != entries/2 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if got := len(left(t)); got != entries/2 {
		t.Errorf("%d left", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 128, 4, 0, 1, 128})
	f.Add([]byte{2, 0, 0, 0, 52, 0, 1, 128, 20, 0, 1, 128, 8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 2, 28, 0, 2, 128, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 3, 232, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		if e, ok := parse(msg); ok && (!e.Dst.IsValid() || !e.Server.IsValid()) {
			t.Errorf("half an entry: %v", e)
		}
	})
}
