package layer2

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// host is a network namespace, and a thread in it on which functions can be run.
type host struct {
	t     *testing.T
	name  string
	ns    netns.NsHandle
	calls chan func()
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{t: t, name: name, calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			ready <- fmt.Errorf("unshare (these tests need root): %w", err)
			return
		}
		var err error
		h.ns, err = netns.Get()
		ready <- err
		for call := range h.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("host %s: %v", name, err)
	}
	t.Cleanup(func() {
		close(h.calls)
		h.ns.Close()
	})
	h.sysctl("net/ipv6/conf/default/accept_dad", "0")
	h.must(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return h
}

// do runs f in the namespace.
func (h *host) do(f func()) {
	done := make(chan struct{})
	h.calls <- func() { defer close(done); f() }
	<-done
}

func (h *host) must(f func() error) {
	h.t.Helper()
	var err error
	h.do(func() { err = f() })
	if err != nil {
		h.t.Fatalf("host %s: %v", h.name, err)
	}
}

func (h *host) sysctl(key, value string) {
	h.t.Helper()
	h.must(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

// link returns the interface as it is now.
func (h *host) link(name string) netlink.Link {
	h.t.Helper()
	var l netlink.Link
	h.must(func() (err error) { l, err = netlink.LinkByName(name); return err })
	return l
}

func (h *host) mac(name string) string { return h.link(name).Attrs().HardwareAddr.String() }

func (h *host) up(name string) {
	h.t.Helper()
	l := h.link(name)
	h.must(func() error { return netlink.LinkSetUp(l) })
}

func (h *host) down(name string) {
	h.t.Helper()
	l := h.link(name)
	h.must(func() error { return netlink.LinkSetDown(l) })
}

// addAddress gives the interface an address that is usable at once.
func (h *host) addAddress(name, cidr string) {
	h.t.Helper()
	h.addAddressWith(name, cidr, unix.IFA_F_NODAD)
}

// addAddressWith gives the interface an address; the flags are for IPv6.
func (h *host) addAddressWith(name, cidr string, flags int) {
	h.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		h.t.Fatal(err)
	}
	if a.IP.To4() == nil {
		a.Flags = flags
	}
	l := h.link(name)
	h.must(func() error { return netlink.AddrAdd(l, a) })
}

// flags returns the flags of an address of the interface.
func (h *host) flags(name string, addr netip.Addr) (flags int) {
	h.t.Helper()
	l := h.link(name)
	h.must(func() error {
		all, err := netlink.AddrList(l, familyOf(addr))
		for _, a := range all {
			if got, _ := netip.AddrFromSlice(a.IP); got.Unmap() == addr {
				flags = a.Flags
			}
		}
		return err
	})
	return flags
}

// lan is an Ethernet switch.
type lan struct {
	*host
	ports int
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	h := newHost(t, "lan")
	h.must(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}) })
	h.up("br0")
	return &lan{host: h}
}

// plug gives h an interface on the switch that is not up yet, and returns the name of the switch's port.
func (n *lan) plug(h *host, name string) (port string) {
	n.t.Helper()
	n.ports++
	port = fmt.Sprintf("port%d", n.ports)
	bridge := n.link("br0")
	n.must(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		attrs.MasterIndex = bridge.Attrs().Index
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(h.ns)}); err != nil {
			return fmt.Errorf("add veth %s: %w", port, err)
		}
		l, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	return port
}

// connect gives h an interface on the switch, and waits until packets go to and fro: the kernel takes up to a second for a carrier.
func (n *lan) connect(h *host, name string) (port string) {
	n.t.Helper()
	port = n.plug(h, name)
	h.up(name)
	eventually(n.t, fmt.Sprintf("%s of %s is connected", name, h.name), func() bool {
		return n.link(port).Attrs().OperState == netlink.OperUp && h.link(name).Attrs().OperState == netlink.OperUp && h.hasLinkLocal(name)
	})
	return port
}

func (h *host) hasLinkLocal(name string) (has bool) {
	h.t.Helper()
	l := h.link(name)
	h.must(func() error {
		all, err := netlink.AddrList(l, netlink.FAMILY_V6)
		has = slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 })
		return err
	})
	return has
}

// newClient returns a host with addresses on the LAN.
func newClient(t *testing.T, n *lan) *host {
	t.Helper()
	h := newHost(t, "client")
	n.connect(h, "eth0")
	h.addAddress("eth0", "192.0.2.10/24")
	h.addAddress("eth0", "2001:db8::10/64")
	return h
}

// newNode returns a host with an interface, without addresses but the link-local one.
func newNode(t *testing.T, n *lan, name string) *host {
	t.Helper()
	h := newHost(t, name)
	n.connect(h, "eth0")
	return h
}

// announcer runs an Announcer on the host until the test ends or the returned function is called.
func (h *host) announcer(c Config) (*Announcer, context.CancelFunc) {
	h.t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(testWriter{h.t, h.name}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	a := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			ended <- err
			return
		}
		ended <- a.Run(ctx)
	}()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				h.t.Errorf("host %s: Run: %v", h.name, err)
			}
		case <-time.After(patience):
			h.t.Errorf("host %s: Run did not return", h.name)
		}
	}
	h.t.Cleanup(stop)
	return a, stop
}

// ready waits until the announcer answers addr on the interfaces.
func ready(t *testing.T, a *Announcer, announcements []Announcement, interfaces ...string) {
	t.Helper()
	eventually(t, "addresses answered on "+strings.Join(interfaces, ","), func() bool {
		for _, s := range a.Sync(announcements) {
			if strings.Join(s.Interfaces, ",") != strings.Join(interfaces, ",") {
				return false
			}
		}
		return true
	})
}

// neighbour returns the MAC address that the host's kernel has for addr, empty when it has none.
func (h *host) neighbour(name string, addr netip.Addr) (mac string, state int) {
	h.t.Helper()
	l := h.link(name)
	h.must(func() error {
		all, err := netlink.NeighList(l.Attrs().Index, familyOf(addr))
		if err != nil {
			return err
		}
		for _, n := range all {
			if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() == addr {
				mac, state = n.HardwareAddr.String(), n.State
			}
		}
		return nil
	})
	return mac, state
}

// poke sends a UDP packet to addr, for which the kernel has to know the neighbour.
func (h *host) poke(addr netip.Addr) {
	h.t.Helper()
	h.must(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
}

// resolves waits until the host has resolved addr to mac.
func (h *host) resolves(name string, addr netip.Addr, mac string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%s resolves %s to %s", h.name, addr, mac), func() bool {
		h.poke(addr)
		got, _ := h.neighbour(name, addr)
		return got == mac
	})
}

// patience is how long a test waits for what should take an instant, but may not on a busy machine.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type testWriter struct {
	t    *testing.T
	name string
}

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, b)
	return len(b), nil
}
