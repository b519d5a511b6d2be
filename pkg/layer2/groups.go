package layer2

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// groups holds the memberships of one interface in solicited-node multicast groups, without which neither the network card nor a
// switch that snoops on MLD would pass the solicitations on (RFC 4861 7.2.1). The memberships belong to the kernel's IPv6 layer, so
// that it also sends and answers the MLD reports.
type groups struct {
	ifIndex int
	// joined tells the socket that holds each membership. The kernel bounds the memberships of one socket (net.core.optmem_max).
	joined  map[netip.Addr]int
	sockets []int
}

// sync joins and leaves groups until exactly those in want are joined. A failure to join one does not keep it from the others.
func (g *groups) sync(want map[netip.Addr]bool) error {
	for group, socket := range g.joined {
		if want[group] {
			continue
		}
		// The membership is gone anyway if this fails: with the interface.
		_ = unix.SetsockoptIPv6Mreq(socket, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, g.mreq(group))
		delete(g.joined, group)
	}
	var failure error
	for group := range want {
		if _, ok := g.joined[group]; ok {
			continue
		}
		socket, err := g.join(group)
		if err != nil {
			failure = fmt.Errorf("join multicast group %s: %w", group, err)
			continue
		}
		g.joined[group] = socket
	}
	return failure
}

func (g *groups) join(group netip.Addr) (int, error) {
	for _, socket := range g.sockets {
		err := unix.SetsockoptIPv6Mreq(socket, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, g.mreq(group))
		if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.ENOBUFS) {
			return socket, err
		}
	}
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptIPv6Mreq(socket, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, g.mreq(group)); err != nil {
		unix.Close(socket)
		return 0, err
	}
	g.sockets = append(g.sockets, socket)
	return socket, nil
}

func (g *groups) mreq(group netip.Addr) *unix.IPv6Mreq {
	return &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(g.ifIndex)}
}

// close leaves all groups.
func (g *groups) close() {
	for _, socket := range g.sockets {
		unix.Close(socket)
	}
	g.sockets, g.joined = nil, nil
}
