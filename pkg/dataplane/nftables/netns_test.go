package nftables

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// privateNet moves the test to a network namespace of its own. Its thread ends with the test, since it stays locked.
func privateNet(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of its own: %v (the test needs root)", err)
	}
}

func newBackend(t testing.TB, mode dataplane.Mode) *Backend {
	t.Helper()
	b, err := New(Config{Mode: mode, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.conn.CloseLasting() })
	return b
}

func nftCommand(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// namespace is a network namespace with a thread that works in it.
type namespace struct {
	t    *testing.T
	fd   int
	work chan func()
}

func newNamespace(t *testing.T) *namespace {
	n := &namespace{t: t, work: make(chan func())}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		started <- err
		for f := range n.work {
			f()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("a network namespace: %v (the test needs root)", err)
	}
	t.Cleanup(func() {
		close(n.work)
		unix.Close(n.fd)
	})
	return n
}

// do runs f in the namespace.
func (n *namespace) do(f func() error) {
	n.t.Helper()
	done := make(chan error)
	n.work <- func() { done <- f() }
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// connect connects two namespaces; each has a name for the interface, and addresses.
func connect(a *namespace, aName string, aAddrs []netip.Prefix, b *namespace, bName string, bAddrs []netip.Prefix) {
	a.t.Helper()
	up := func(name string, addrs []netip.Prefix) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, p := range addrs {
			addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
			if p.Addr().Is6() {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("address %s of %s: %w", p, name, err)
			}
		}
		return netlink.LinkSetUp(link)
	}
	a.do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(b.fd)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth %s-%s: %w", aName, bName, err)
		}
		return up(aName, aAddrs)
	})
	b.do(func() error { return up(bName, bAddrs) })
}

// route sends everything by way of the gateways.
func (n *namespace) route(gateways ...string) {
	n.t.Helper()
	n.do(func() error {
		for _, gw := range gateways {
			if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
				return fmt.Errorf("route by %s: %w", gw, err)
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

// serve answers connections with the name and the client's address.
func (n *namespace) serve(name string, port int) {
	n.t.Helper()
	n.do(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		n.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
				fmt.Fprintf(c, "%s %s", name, client)
				c.Close()
			}
		}()
		return nil
	})
}

// ask connects and returns the answer, or "refused" or "silence".
func (n *namespace) ask(from, to string) string {
	n.t.Helper()
	var answer string
	n.do(func() error {
		d := net.Dialer{Timeout: time.Second}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		c, err := d.Dial("tcp", to)
		switch {
		case err == nil:
			defer c.Close()
			b, err := io.ReadAll(c)
			answer = string(b)
			return err
		case os.IsTimeout(err):
			answer = "silence"
		default:
			answer = "refused"
		}
		return nil
	})
	return answer
}
