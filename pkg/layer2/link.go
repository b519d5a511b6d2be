package layer2

import (
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultExclude matches the names of interfaces that container runtimes, network plugins and proxies make, and that lead to no
// neighbour outside the node.
var DefaultExclude = regexp.MustCompile(`^(lo$|docker|br-[0-9a-f]{12}$|cbr|cni|podman|dummy|virbr|lxc|veth|cali|vxlan\.calico|tunl|flannel|cilium_|antrea-|weave|kube-ipvs|kube-bridge|nodelocaldns)`)

// link is what matters here of a network interface.
type link struct {
	index     int
	name      string
	mac       mac
	up        bool
	carrier   bool
	loopback  bool
	noARP     bool
	broadcast bool
	enslaved  bool
	// linkLocal is a link-local address that has passed duplicate address detection; invalid while there is none.
	linkLocal netip.Addr
}

func newLink(attrs *netlink.LinkAttrs) link {
	return link{
		index:     attrs.Index,
		name:      attrs.Name,
		mac:       toMAC(attrs.HardwareAddr),
		up:        attrs.Flags&net.FlagUp != 0,
		carrier:   attrs.RawFlags&unix.IFF_RUNNING != 0,
		loopback:  attrs.Flags&net.FlagLoopback != 0,
		noARP:     attrs.RawFlags&unix.IFF_NOARP != 0,
		broadcast: attrs.Flags&net.FlagBroadcast != 0,
		enslaved:  attrs.MasterIndex != 0,
	}
}

// unusable says why nothing is announced on l; empty if it can be.
func (l link) unusable(exclude []*regexp.Regexp) string {
	switch {
	case l.loopback:
		return "it is a loopback interface"
	case slices.ContainsFunc(exclude, func(r *regexp.Regexp) bool { return r.MatchString(l.name) }):
		return "its name is excluded"
	case l.enslaved:
		return "it is a port of a bridge, bond or VRF; name that one instead"
	case l.mac == mac{}:
		return "it is not an Ethernet interface"
	case l.noARP:
		return "it has the flag NOARP"
	case !l.up:
		return "it is down"
	}
	return ""
}

// unusableFor is unusable, and what one of the two protocols needs besides.
func (l link) unusableFor(family int, exclude []*regexp.Regexp) string {
	if why := l.unusable(exclude); why != "" {
		return why
	}
	switch {
	case family == unix.AF_INET && !l.broadcast:
		return "it cannot broadcast, so that ARP does not work on it"
	case family == unix.AF_INET6 && !l.linkLocal.IsValid():
		return "it has no IPv6 link-local address yet"
	}
	return ""
}

// links is the kernel's list of interfaces as its netlink messages tell it.
type links struct {
	byIndex    map[int]link
	linkLocals map[int][]netip.Addr
}

func newLinks() *links {
	return &links{byIndex: map[int]link{}, linkLocals: map[int][]netip.Addr{}}
}

// set takes a link as it is now, and reports whether anything that matters here changed.
func (t *links) set(l link) bool {
	l.linkLocal = first(t.linkLocals[l.index])
	old, known := t.byIndex[l.index]
	t.byIndex[l.index] = l
	return !known || old != l
}

func (t *links) remove(index int) bool {
	_, known := t.byIndex[index]
	delete(t.byIndex, index)
	delete(t.linkLocals, index)
	return known
}

// setAddress takes an address of the interface with that index. Addresses that are tentative or failed duplicate address detection
// count as absent; the kernel tells when that changes.
func (t *links) setAddress(index int, addr netip.Addr, present bool, flags int) bool {
	if !addr.Is6() || !addr.IsLinkLocalUnicast() {
		return false
	}
	present = present && flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
	addresses := slices.DeleteFunc(slices.Clone(t.linkLocals[index]), func(a netip.Addr) bool { return a == addr })
	if present {
		addresses = append(addresses, addr)
		slices.SortFunc(addresses, netip.Addr.Compare)
	}
	if len(addresses) == 0 {
		delete(t.linkLocals, index)
	} else {
		t.linkLocals[index] = addresses
	}
	l, known := t.byIndex[index]
	return known && t.set(l)
}

func first(addresses []netip.Addr) netip.Addr {
	if len(addresses) == 0 {
		return netip.Addr{}
	}
	return addresses[0]
}
