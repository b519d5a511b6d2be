package unnumbered

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// host is a thread in a network namespace of its own.
type host struct {
	t     *testing.T
	ns    netns.NsHandle
	calls chan func()
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			ready <- fmt.Errorf("unshare (these tests need root): %w", err)
			return
		}
		var err error
		if h.ns, err = netns.Get(); err == nil {
			err = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		}
		ready <- err
		for call := range h.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(h.calls)
		h.ns.Close()
	})
	return h
}

func (h *host) must(f func() error) {
	h.t.Helper()
	failed := make(chan error)
	h.calls <- func() { failed <- f() }
	if err := <-failed; err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) ip(arguments string) {
	h.t.Helper()
	h.must(func() error {
		if output, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", arguments, err, output)
		}
		return nil
	})
}

// connect makes a cable between two hosts, whose ends are called eth0 and are up.
func connect(a, b *host) {
	a.t.Helper()
	a.must(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.ns)})
	})
	a.ip("link set eth0 up")
	b.ip("link set eth0 up")
}

// local returns the host's link-local address with its zone.
func (h *host) local() (local netip.Addr) {
	h.t.Helper()
	eventually(h.t, "eth0 has a link-local address", func() bool {
		h.must(func() error {
			ifi, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			all, err := ifi.Addrs()
			for _, a := range all {
				if n, _ := netip.ParsePrefix(a.String()); n.Addr().Is6() && n.Addr().IsLinkLocalUnicast() {
					local = n.Addr().WithZone("eth0")
				}
			}
			return err
		})
		return local.IsValid()
	})
	return local
}

// discover runs a Discovery on the host until the test ends.
func (h *host) discover(interfaces ...string) *Discovery {
	h.t.Helper()
	d := New(slog.New(slog.DiscardHandler))
	d.Sync(interfaces)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			ended <- err
			return
		}
		ended <- d.Run(ctx)
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	})
	return d
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

func finds(t *testing.T, d *Discovery, router netip.Addr) {
	t.Helper()
	t.Helper()
	eventually(t, fmt.Sprintf("%v is found", router), func() bool { return d.Peers()["eth0"] == router && len(d.Faults()) == 0 })
}

func loses(t *testing.T, d *Discovery, why string) {
	t.Helper()
	t.Helper()
	eventually(t, "no router, because of: "+why, func() bool { return len(d.Peers()) == 0 && strings.Contains(d.Faults()["eth0"], why) })
}

func TestBothEndsFindEachOther(t *testing.T) {
	t.Parallel()
	node, router := newHost(t), newHost(t)
	d := node.discover("eth0")
	loses(t, d, "no interface eth0")
	connect(node, router)
	loses(t, d, "no router has sent")
	other := router.discover("eth0")
	finds(t, d, router.local())
	finds(t, other, node.local())

	d.Sync(nil)
	eventually(t, "an interface that is not wanted is left alone", func() bool { return len(d.Peers()) == 0 && len(d.Faults()) == 0 })
	d.Sync([]string{"eth0"})
	finds(t, d, router.local()) // it answers a solicitation
}

func TestLinkGoesAndComes(t *testing.T) {
	t.Parallel()
	node, router := newHost(t), newHost(t)
	connect(node, router)
	d := node.discover("eth0")
	router.discover("eth0")
	finds(t, d, router.local())

	router.ip("link set eth0 down")
	loses(t, d, "no carrier")
	router.ip("link set eth0 up")
	finds(t, d, router.local())
	node.ip("link set eth0 down")
	loses(t, d, "is down")
	node.ip("link set eth0 up")
	finds(t, d, router.local())

	node.ip("link del eth0")
	loses(t, d, "no interface eth0")
	connect(node, router)
	finds(t, d, router.local())
}

func TestOwnAddressChanges(t *testing.T) {
	t.Parallel()
	node, router := newHost(t), newHost(t)
	connect(node, router)
	d := node.discover("eth0")
	other := router.discover("eth0")
	finds(t, other, node.local())
	node.ip("address flush dev eth0")
	loses(t, d, "link-local address")
	node.ip("address add fe80::77/64 dev eth0")
	finds(t, d, router.local())
	finds(t, other, netip.MustParseAddr("fe80::77%eth0")) // once the former one does not answer any more
}

// TestAdvertisements looks at what is sent, as a router does that is not ours.
func TestAdvertisements(t *testing.T) {
	t.Parallel()
	node, router := newHost(t), newHost(t)
	connect(node, router)
	router.local()
	var conn *ndp.Conn
	router.must(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		ifi.Name = strconv.Itoa(ifi.Index) // see open
		conn, _, err = ndp.Listen(ifi, ndp.LinkLocal)
		if err == nil {
			err = conn.SetControlMessage(ipv6.FlagHopLimit, true)
		}
		return err
	})
	defer conn.Close()
	from := node.local()
	d := node.discover("eth0")
	receive := func() {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for {
			m, control, source, err := conn.ReadFrom()
			if err != nil {
				t.Fatalf("no advertisement: %v", err)
			}
			ra, ok := m.(*ndp.RouterAdvertisement)
			if !ok {
				continue
			}
			if ra.RouterLifetime != 0 || ra.ManagedConfiguration || ra.OtherConfiguration || len(ra.Options) != 1 || control.HopLimit != 255 || source.WithZone("") != from.WithZone("") {
				t.Errorf("from %v with hop limit %d: %+v", source, control.HopLimit, ra)
			}
			return
		}
	}
	begin := time.Now()
	for range firstCount {
		receive()
	}
	if took := time.Since(begin); took > pause {
		t.Errorf("the first %d advertisements took %v", firstCount, took)
	}
	begin = time.Now()
	if err := conn.WriteTo(&ndp.RouterSolicitation{}, nil, allRouters); err != nil {
		t.Fatal(err)
	}
	receive()
	if took := time.Since(begin); took > pause-pauseJitter-answerPause {
		t.Errorf("a solicitation was answered after %v", took)
	}

	// A message that came through a router is none of a neighbour's.
	far := &ipv6.ControlMessage{HopLimit: 64}
	if err := conn.WriteTo(&ndp.RouterAdvertisement{}, far, allNodes); err != nil {
		t.Fatal(err)
	}
	if err := conn.WriteTo(&ndp.RouterSolicitation{}, nil, allRouters); err != nil {
		t.Fatal(err)
	}
	receive()
	if peers := d.Peers(); len(peers) > 0 {
		t.Errorf("found %v by a message with a hop limit of 64", peers)
	}
	if err := conn.WriteTo(&ndp.RouterAdvertisement{}, nil, allNodes); err != nil {
		t.Fatal(err)
	}
	finds(t, d, router.local())
}
