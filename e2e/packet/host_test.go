package packet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// host is a machine or a pod: a network namespace that only this process holds.
type host struct {
	name  string
	ns    netns.NsHandle
	links *netlink.Handle
}

func newHost(name string) (*host, error) {
	h := &host{name: name}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("unshare (these tests need root): %w", err)
			return
		}
		var err error
		h.ns, err = netns.Get()
		result <- err
	}()
	if err := <-result; err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	var err error
	if h.links, err = netlink.NewHandleAt(h.ns); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	// Duplicate address detection would hold every IPv6 address back for a second.
	for _, all := range []string{"all", "default"} {
		if err := h.sysctl("net/ipv6/conf/"+all+"/accept_dad", "0"); err != nil {
			return nil, err
		}
		if err := h.sysctl("net/ipv6/conf/"+all+"/accept_ra", "0"); err != nil {
			return nil, err
		}
	}
	return h, h.up("lo")
}

func (h *host) close() {
	h.links.Close()
	h.ns.Close()
}

// do runs f on a thread in the host's namespace. Sockets that f opens and programs that it starts are the host's.
func (h *host) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(h.ns); err != nil {
			result <- fmt.Errorf("host %s: %w", h.name, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// run runs a program on the host and returns what it printed.
func (h *host) run(args ...string) (string, error) { return h.feed("", args...) }

// feed is run with a standard input.
func (h *host) feed(stdin string, args ...string) (string, error) {
	cmd := isolated(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := h.do(cmd.Start); err != nil {
		return "", fmt.Errorf("host %s: %s: %w", h.name, strings.Join(args, " "), err)
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("host %s: %s: %w: %s", h.name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// isolated prepares a program with files of its own under /run: the lock of iptables would be the whole machine's otherwise.
func isolated(args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", `mount -t tmpfs tmpfs /run && exec "$@"`, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	return cmd
}

func (h *host) sysctl(key, value string) error {
	return h.do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

func (h *host) up(name string) error {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("host %s: %s: %w", h.name, name, err)
	}
	return h.links.LinkSetUp(link)
}

// cable connects two hosts by a pair of interfaces.
func cable(a *host, nameA string, b *host, nameB string) error {
	err := a.links.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns),
	})
	if err != nil {
		return fmt.Errorf("cable %s/%s: %w", a.name, nameA, err)
	}
	if err := a.up(nameA); err != nil {
		return err
	}
	return b.up(nameB)
}

// address adds addresses to an interface.
func (h *host) address(link string, prefixes ...netip.Prefix) error {
	l, err := h.links.LinkByName(link)
	if err != nil {
		return fmt.Errorf("host %s: %s: %w", h.name, link, err)
	}
	for _, p := range prefixes {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.links.AddrAdd(l, a); err != nil {
			return fmt.Errorf("host %s: %s on %s: %w", h.name, p, link, err)
		}
	}
	return nil
}

// route sends a destination to a gateway, or straight out of the interface if the gateway is the zero Addr; it takes the place of a
// route to the same destination.
func (h *host) route(to netip.Prefix, via netip.Addr, link string) error {
	r := &netlink.Route{Dst: ipNet(to)}
	if link != "" {
		l, err := h.links.LinkByName(link)
		if err != nil {
			return fmt.Errorf("host %s: %s: %w", h.name, link, err)
		}
		r.LinkIndex = l.Attrs().Index
	}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := h.links.RouteReplace(r); err != nil {
		return fmt.Errorf("host %s: route to %s via %s %s: %w", h.name, to, via, link, err)
	}
	return nil
}

// own makes the host take packets to a whole network as its own, and lets it use every address of it.
func (h *host) own(p netip.Prefix) error {
	lo, err := h.links.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.links.RouteReplace(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	})
}

// has tells whether one of the host's interfaces has the address.
func (h *host) has(a netip.Addr) bool {
	list, err := h.links.AddrList(nil, netlink.FAMILY_ALL)
	return err == nil && slices.ContainsFunc(list, func(x netlink.Addr) bool {
		found, _ := netip.AddrFromSlice(x.IP)
		return found.Unmap() == a
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// single is the network of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
