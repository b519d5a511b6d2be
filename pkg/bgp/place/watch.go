package place

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// groups are those of changes to interfaces, addresses and routes (rtnetlink(7)). IPv6 tells of routes that router advertisements bring,
// too.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// Watch returns a channel that receives when what Locate and Gateways return may have changed, until ctx is done. It holds one message:
// many changes are told as one.
func Watch(ctx context.Context) (<-chan struct{}, error) {
	c, err := subscribe()
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			if c != nil {
				receive(ctx, c, changed)
				c.Close()
			}
			// Something is wrong with the socket, or it could not be opened: changes may have been missed.
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			c, _ = subscribe()
			notify(changed)
		}
	}()
	return changed, nil
}

func subscribe() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes of routes and addresses: %w", err)
	}
	return c, nil
}

// receive returns when ctx is done or c fails.
func receive(ctx context.Context, c *netlink.Conn, changed chan<- struct{}) {
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	for {
		// ENOBUFS: the kernel dropped messages. What they said does not matter, but that there were some.
		if _, err := c.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		notify(changed)
	}
}

func notify(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}
