package membership

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetUnresolved deletes the neighbour entries of these addresses that the kernel has not resolved yet. The next
// packet then asks for the neighbour at once; the kernel itself repeats ARP requests and neighbour solicitations
// only once a second (RFC 4861 RetransTimer), which is too slow to find each other after a partition. It also
// frees the packets that wait there, before they fill the socket's send buffer.
func forgetUnresolved(addrs []netip.AddrPort) error {
	family := unix.AF_INET
	if addrs[0].Addr().Is6() {
		family = unix.AF_INET6
	}
	wanted := map[netip.Addr]bool{}
	for _, addr := range addrs {
		wanted[addr.Addr()] = true
	}
	entries, err := netlink.NeighListExecute(netlink.Ndmsg{Family: uint8(family)})
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		addr, _ := netip.AddrFromSlice(entry.IP)
		if entry.State == netlink.NUD_INCOMPLETE && wanted[addr.Unmap()] {
			if err := netlink.NeighDel(&entry); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
