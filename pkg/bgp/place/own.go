package place

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Own returns the node's addresses, link-local ones with their zones.
func Own() ([]netip.Addr, error) {
	all, err := uninterrupted(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	var own []netip.Addr
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		addr = addr.Unmap()
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			if names[a.LinkIndex] == "" {
				l, err := netlink.LinkByIndex(a.LinkIndex)
				if err != nil {
					continue // it has just gone
				}
				names[a.LinkIndex] = l.Attrs().Name
			}
			addr = addr.WithZone(names[a.LinkIndex])
		}
		own = append(own, addr)
	}
	return own, nil
}
