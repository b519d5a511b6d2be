package engine

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// watchAddrs sends the addresses of this network namespace's interfaces, sorted, at once and after each change.
func watchAddrs(ctx context.Context, log *slog.Logger) <-chan []netip.Addr {
	out := make(chan []netip.Addr)
	go func() {
		var last []netip.Addr
		for ctx.Err() == nil {
			err := followAddrs(ctx, func(now []netip.Addr) {
				if last != nil && slices.Equal(now, last) {
					return
				}
				last = now
				select {
				case out <- now:
				case <-ctx.Done():
				}
			})
			if err != nil {
				log.Warn("this node's addresses are not known; node ports may be closed on new ones. Will try again", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return out
}

// followAddrs calls f with all addresses, and again after each message about one. It returns an error when messages may have been lost.
func followAddrs(ctx context.Context, f func([]netip.Addr)) error {
	updates, done, failed := make(chan netlink.AddrUpdate, 64), make(chan struct{}), make(chan error, 1)
	err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}})
	if err != nil {
		return err
	}
	defer func() {
		close(done)
		go func() { // the subscription ends only once it is rid of its messages
			for range updates {
			}
		}()
	}()
	for {
		addrs, err := listAddrs()
		if err != nil {
			return err
		}
		f(addrs)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case _, ok := <-updates:
			if !ok {
				return <-failed
			}
		}
		for len(updates) > 0 { // many at once cost one listing
			<-updates
		}
	}
}

func listAddrs() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{}
	for _, a := range list {
		addr, _ := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		// Each pod's interface has one of these, and nobody reaches a node port by it.
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			continue
		}
		addrs = append(addrs, addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}
