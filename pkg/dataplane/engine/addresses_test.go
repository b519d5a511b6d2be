package engine

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestAddressesAreFollowed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	seen, done, handle := make(chan []netip.Addr), make(chan error, 1), make(chan *netlink.Handle, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread is in a namespace of its own, and ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			done <- err // this test needs root
			return
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // its socket stays in this namespace
		if err != nil {
			done <- err
			return
		}
		handle <- h
		done <- followAddrs(ctx, func(addrs []netip.Addr) {
			select {
			case seen <- addrs:
			case <-ctx.Done():
			}
		})
	}()
	await := func(want ...string) {
		t.Helper()
		for {
			select {
			case err := <-done:
				t.Fatal(err)
			case addrs := <-seen:
				var got []string
				for _, a := range addrs {
					got = append(got, a.String())
				}
				if slices.Equal(got, want) {
					return
				}
			}
		}
	}
	await()
	h := <-handle
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(32, 32)}}
	linkLocal := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}}
	must(h.LinkSetUp(lo))
	must(h.AddrAdd(lo, linkLocal))
	must(h.AddrAdd(lo, a))
	await("127.0.0.1", "192.0.2.1", "::1")
	must(h.AddrDel(lo, a))
	await("127.0.0.1", "::1")
	cancel()
	must(<-done)
}
