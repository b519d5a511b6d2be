package layer2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netlinkBuffer is large enough for the messages of a node on which hundreds of pods start at once.
const netlinkBuffer = 1 << 20

// watch keeps t equal to the kernel's interfaces and calls changed when t is complete for the first time and after each change that
// matters, and also when wake receives. It returns when ctx is done, or with an error when messages were lost and t has to be built
// anew.
func watch(ctx context.Context, t *links, changed func(), wake <-chan struct{}) error {
	done := make(chan struct{})
	defer close(done)
	linkUpdates, addrUpdates := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	failed := make(chan error, 2)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	if err := netlink.LinkSubscribeWithOptions(linkUpdates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: fail, ReceiveBufferSize: netlinkBuffer, ReceiveBufferForceSize: true,
	}); err != nil {
		return fmt.Errorf("subscribe to changes of interfaces: %w", err)
	}
	defer drain(linkUpdates)
	if err := netlink.AddrSubscribeWithOptions(addrUpdates, done, netlink.AddrSubscribeOptions{
		ErrorCallback: fail, ReceiveBufferSize: netlinkBuffer, ReceiveBufferForceSize: true,
	}); err != nil {
		return fmt.Errorf("subscribe to changes of addresses: %w", err)
	}
	defer drain(addrUpdates)

	// Only now, so that what changes during the listing comes as a message after it.
	if err := list(t); err != nil {
		return err
	}
	changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("messages about interfaces were lost: %w", err)
		case u, ok := <-linkUpdates:
			if !ok {
				return fmt.Errorf("the subscription to changes of interfaces ended")
			}
			if applyLink(t, u) {
				changed()
			}
		case u, ok := <-addrUpdates:
			if !ok {
				return fmt.Errorf("the subscription to changes of addresses ended")
			}
			addr, _ := netip.AddrFromSlice(u.LinkAddress.IP)
			if t.setAddress(u.LinkIndex, addr.Unmap(), u.NewAddr, u.Flags) {
				changed()
			}
		case <-wake:
			changed()
		}
	}
}

func applyLink(t *links, u netlink.LinkUpdate) bool {
	// Bridges send messages of their own about their ports; the "deletion" among them is that of the port, not of the interface.
	if u.IfInfomsg.Family != unix.AF_UNSPEC {
		return false
	}
	if u.Header.Type == unix.RTM_DELLINK {
		return t.remove(u.Link.Attrs().Index)
	}
	return t.set(newLink(u.Link.Attrs()))
}

// list replaces t's content by what the kernel has now.
func list(t *links) error {
	all, err := uninterrupted(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := uninterrupted(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V6) })
	if err != nil {
		return fmt.Errorf("list IPv6 addresses: %w", err)
	}
	clear(t.byIndex)
	clear(t.linkLocals)
	for _, a := range addresses {
		addr, _ := netip.AddrFromSlice(a.IP)
		t.setAddress(a.LinkIndex, addr, true, a.Flags)
	}
	for _, l := range all {
		t.set(newLink(l.Attrs()))
	}
	return nil
}

// uninterrupted repeats a listing during which the kernel's table changed, because it may lack entries that did not.
func uninterrupted[T any](list func() ([]T, error)) (all []T, err error) {
	for range 10 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// drain lets the subscription's goroutine end, which may be waiting to hand over a message.
func drain[T any](updates <-chan T) {
	go func() {
		for range updates {
		}
	}()
}
