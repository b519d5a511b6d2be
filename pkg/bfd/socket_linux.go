package bfd

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// trafficClass is DSCP CS6, which networks keep for what holds them together.
	trafficClass = 0xc0
	// priority has the packets sent before others by this node's queueing disciplines; more would need a privilege.
	priority = 6
)

// kernel is the network that the kernel knows, in the network namespace of the thread that calls its methods.
type kernel struct {
	inbox     chan<- received
	listeners map[endpoint]*listener
}

func newKernel(inbox chan<- received) *kernel {
	return &kernel{inbox: inbox, listeners: map[endpoint]*listener{}}
}

// passing says that a socket may be used again although sending by it has failed.
func passing(err error) bool {
	for _, e := range []unix.Errno{unix.ENOBUFS, unix.EPERM, unix.EAGAIN, unix.ECONNREFUSED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// socketPath is a connected socket. The kernel has its route and its source address at hand, and tells when the peer's port is closed.
type socketPath struct {
	fd    int
	peer  netip.Addr
	port  uint16
	local netip.AddrPort
}

func (k *kernel) open(s Session, local netip.Addr, port uint16) (path, error) {
	p, err := openPath(s, local, port)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func openPath(s Session, local netip.Addr, port uint16) (*socketPath, error) {
	peer := s.Peer.Unmap()
	fd, err := newSocket(s.key().endpoint())
	if err != nil {
		return nil, fmt.Errorf("opening a socket for %s: %w", peer, err)
	}
	p := &socketPath{fd: fd, peer: peer, port: s.port()}
	fail := func(doing string, err error) (*socketPath, error) {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if peer.Is4() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 255)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255)
	}
	if err != nil {
		return fail("setting the TTL", err)
	}
	zone := uint32(0)
	if peer.Zone() != "" {
		if zone, err = interfaceIndex(fd, peer.Zone()); err != nil {
			return fail("looking for interface "+peer.Zone(), err)
		}
	}
	if err := bindSource(fd, peer, local, zone, port); err != nil {
		return fail(fmt.Sprintf("binding to local address %s", local), err)
	}
	if err := unix.Connect(fd, socketAddress(peer, p.port, zone)); err != nil {
		return fail(fmt.Sprintf("looking for a way to %s", peer), err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return fail("asking for the local address", err)
	}
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		p.local = netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port))
	case *unix.SockaddrInet6:
		p.local = netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port))
	}
	return p, nil
}

// bindSource binds to the address, invalid for any, and to the port or, if that is not free, to another.
func bindSource(fd int, peer, local netip.Addr, zone uint32, port uint16) error {
	if !local.IsValid() {
		local = netip.IPv4Unspecified()
		if peer.Is6() {
			local = netip.IPv6Unspecified()
		}
	}
	var err error
	for range portTries {
		if err = unix.Bind(fd, socketAddress(local.Unmap(), port, zone)); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		port = randomPort()
	}
	return err
}

func (p *socketPath) source() netip.AddrPort { return p.local }

func (p *socketPath) close() { unix.Close(p.fd) }

func (p *socketPath) send(b []byte) error {
	_, err := unix.Write(p.fd, b)
	if err == nil {
		return nil
	}
	if err != unix.ENOBUFS && err != unix.EAGAIN && err != unix.EPERM {
		// It may be what became of an earlier packet, and then this one was not sent.
		unix.Write(p.fd, b)
	}
	switch err {
	case unix.ECONNREFUSED:
		return fmt.Errorf("%s listens to no BFD packets on UDP port %d, is it configured there? %w", p.peer, p.port, err)
	case unix.EPERM:
		return fmt.Errorf("a firewall rule of this node drops packets to UDP port %d of %s: %w", p.port, p.peer, err)
	}
	return fmt.Errorf("sending to %s: %w", p.peer, err)
}

// newSocket returns a socket that is bound to the endpoint's device but to no port.
func newSocket(e endpoint) (fd int, err error) {
	family := unix.AF_INET
	if e.v6 {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP); err != nil {
		return -1, err
	}
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	if e.v6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		set(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, trafficClass)
	} else {
		set(unix.IPPROTO_IP, unix.IP_TOS, trafficClass)
	}
	set(unix.SOL_SOCKET, unix.SO_PRIORITY, priority) // after IP_TOS, which sets it too
	if err == nil && e.device != "" {
		err = unix.BindToDevice(fd, e.device)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func interfaceIndex(fd int, name string) (uint32, error) {
	request, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	}
	if err != nil {
		return 0, err
	}
	return request.Uint32(), nil
}

func socketAddress(addr netip.Addr, port uint16, zone uint32) unix.Sockaddr {
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4(), Port: int(port)}
	}
	if !addr.IsLinkLocalUnicast() {
		zone = 0
	}
	return &unix.SockaddrInet6{Addr: addr.As16(), Port: int(port), ZoneId: zone}
}
