// Package place asks the kernel where a BGP peer is, seen from this node.
package place

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Place is how this node reaches a peer.
type Place struct {
	Interface string
	// Source is the address that the kernel chooses for a connection to the peer, with its zone if it is link-local.
	Source netip.Addr
	// NextHop4 and NextHop6 are addresses by which the peer can reach the node: Source for its own family unless that is link-local, and
	// for the other family one of Interface. Invalid if there is none.
	NextHop4, NextHop6 netip.Addr
	// Routed: there is another router between this node and the peer.
	Routed bool
}

// Locate returns how the peer is reached. Device is the interface or VRF that the connection is bound to, empty for none; a link-local
// peer has a zone, too. Errors say how to mend it.
func Locate(peer netip.Addr, device string) (Place, error) {
	peer = peer.Unmap()
	if peer.Zone() != "" && peer.WithZone("").Is6() && device == "" {
		device = peer.Zone()
	}
	options := &netlink.RouteGetOptions{}
	if device != "" {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return Place{}, fmt.Errorf("this node has no interface or VRF %s, over which peer %s is to be reached", device, peer)
		}
		options.OifIndex = l.Attrs().Index
	} else if peer.IsLinkLocalUnicast() && peer.Is6() {
		return Place{}, fmt.Errorf("link-local peer %s can't be reached without naming an interface: write the peer with its interface", peer)
	}
	found, err := netlink.RouteGetWithOptions(peer.WithZone("").AsSlice(), options)
	if err != nil || len(found) == 0 {
		return Place{}, unreachable(peer, device, err)
	}
	route := found[0]
	if route.Type == unix.RTN_LOCAL {
		return Place{}, fmt.Errorf("%s is an address of this node itself: a BGP peer is another router", peer)
	}
	l, err := netlink.LinkByIndex(route.LinkIndex)
	if err != nil {
		return Place{}, fmt.Errorf("find the interface towards peer %s: %w", peer, err)
	}
	p := Place{Interface: l.Attrs().Name, Routed: route.Gw != nil || route.Via != nil}
	if source, ok := netip.AddrFromSlice(route.Src); ok {
		p.Source = zoned(source.Unmap(), p.Interface)
	}
	addresses, err := usable(l)
	if err != nil {
		return Place{}, fmt.Errorf("list the addresses of interface %s: %w", p.Interface, err)
	}
	p.NextHop4, p.NextHop6 = nextHops(p.Source, addresses)
	return p, nil
}

func unreachable(peer netip.Addr, device string, err error) error {
	over := ""
	if device != "" {
		over = " over " + device
	}
	if err == nil || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return fmt.Errorf("this node has no route to peer %s%s: give the node an address in the peer's network, or a route", peer, over)
	}
	return fmt.Errorf("this node's routes do not lead to peer %s%s: %w: see ip route get %s", peer, over, err, peer.WithZone(""))
}

// address is what matters here of an address of an interface.
type address struct {
	netip.Addr
	host       bool // its prefix is a single address, as virtual addresses often are
	secondary  bool // of IPv6: temporary (RFC 8981)
	deprecated bool
}

// usable returns the addresses that others may be told, as the kernel orders them.
func usable(l netlink.Link) ([]address, error) {
	all, err := uninterrupted(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var usable []address
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Scope != unix.RT_SCOPE_UNIVERSE && a.Scope != unix.RT_SCOPE_SITE || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		ones, bits := a.Mask.Size()
		usable = append(usable, address{Addr: addr.Unmap(), host: ones == bits, secondary: a.Flags&unix.IFA_F_SECONDARY != 0, deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0})
	}
	return usable, nil
}

// nextHops chooses the address of each family that lasts longest. Virtual addresses, of keepalived for one, move to other nodes.
func nextHops(source netip.Addr, addresses []address) (v4, v6 netip.Addr) {
	addresses = slices.Clone(addresses)
	rank := func(a address) int {
		n := 0
		for i, bad := range []bool{a.secondary, a.host, a.deprecated} {
			if bad {
				n |= 1 << i
			}
		}
		return n
	}
	slices.SortStableFunc(addresses, func(a, b address) int { return cmp.Compare(rank(a), rank(b)) })
	for _, a := range addresses {
		if a.Is4() && !v4.IsValid() {
			v4 = a.Addr
		}
		if a.Is6() && !v6.IsValid() {
			v6 = a.Addr
		}
	}
	switch {
	case source.Is4():
		v4 = source
	case source.Is6() && !source.IsLinkLocalUnicast():
		v6 = source
	}
	return v4, v6
}

// Gateways returns the next hops of the node's default routes with the best metric, invalid where there is none; a link-local one has its
// zone. Routes over interfaces that have no carrier do not count.
func Gateways() (v4, v6 netip.Addr, err error) {
	for _, family := range []struct {
		number int
		to     *netip.Addr
	}{{netlink.FAMILY_V4, &v4}, {netlink.FAMILY_V6, &v6}} {
		all, err := uninterrupted(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family.number, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return netip.Addr{}, netip.Addr{}, fmt.Errorf("list this node's routes: %w", err)
		}
		slices.SortStableFunc(all, func(a, b netlink.Route) int { return cmp.Compare(metric(a), metric(b)) })
		for _, r := range all {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 || r.Type != unix.RTN_UNICAST {
				continue
			}
			if gateway := gatewayOf(r); gateway.IsValid() {
				*family.to = gateway
				break
			}
		}
	}
	return v4, v6, nil
}

// metric is a route's; 0 comes first in both families, though IPv6 stores its default as 1024.
func metric(r netlink.Route) int { return r.Priority }

// gatewayOf returns the first next hop of a route that can carry packets.
func gatewayOf(r netlink.Route) netip.Addr {
	hops := r.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Flags: r.Flags}}
	}
	for _, h := range hops {
		gateway, ok := netip.AddrFromSlice(h.Gw)
		if !ok || h.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0 {
			continue
		}
		l, err := netlink.LinkByIndex(h.LinkIndex)
		if err != nil {
			continue
		}
		return zoned(gateway.Unmap(), l.Attrs().Name)
	}
	return netip.Addr{}
}

// zoned gives a link-local IPv6 address its zone.
func zoned(a netip.Addr, zone string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(zone)
	}
	return a
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
