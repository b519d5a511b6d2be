package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// routerTTL is what GTSM sends with (RFC 5082), and what multihop sessions have.
const routerTTL = 255

// dial connects to a router.
func dial(ctx context.Context, p *bgp.Peer) (*net.TCPConn, error) {
	keepAlive := time.Duration(-1)
	if p.HoldTime == 0 {
		keepAlive = 0 // the usual: only the kernel asks whether the router is still there
	}
	dialer := net.Dialer{Timeout: dialPatience, KeepAlive: keepAlive, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			if p.Device != "" {
				if err := unix.BindToDevice(fd, p.Device); err != nil {
					return fmt.Errorf("bind to %s: %w", p.Device, err)
				}
			}
			return errors.Join(setPassword(fd, p.Address, p.Password), setTTL(fd, p))
		})
	}}
	dialer.SetMultipathTCP(false) // it does not go with TCP MD5
	if p.Source.IsValid() {
		source := p.Source
		if source.IsLinkLocalUnicast() && source.Is6() && source.Zone() == "" {
			source = source.WithZone(p.Address.Zone())
		}
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(p.Address, p.Port).String())
	if err != nil {
		return nil, errors.New(explain(p, err))
	}
	return conn.(*net.TCPConn), nil
}

// explain says what may be wrong when a router can't be connected to.
func explain(p *bgp.Peer, err error) string {
	to := netip.AddrPortFrom(p.Address, p.Port)
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		password := "it expects a password (TCP MD5), which this peer has not"
		if p.Password != "" {
			password = "the password (TCP MD5) is not the router's"
		}
		return fmt.Sprintf("%v does not answer: it is down or cannot be reached, or %s", to, password)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Sprintf("%v refuses the connection: BGP does not run there, or not on this port", to)
	case errors.Is(err, unix.EADDRNOTAVAIL) && p.Source.IsValid():
		return fmt.Sprintf("connect to %v from %v: this node does not have that address", to, p.Source)
	case errors.Is(err, unix.ENODEV):
		return fmt.Sprintf("connect to %v: this node has no interface %q", to, p.Device)
	}
	return fmt.Sprintf("connect to %v: %v", to, bare(err))
}

// bare returns an error without what package net says about the connection.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// setTTL sets how far packets go, and from how far they may come.
func setTTL(fd int, p *bgp.Peer) error {
	ttl, minimum := 0, 0
	switch {
	case p.TTLSecurity > 0:
		ttl, minimum = routerTTL, routerTTL+1-int(p.TTLSecurity)
	case p.LocalASN == p.PeerASN:
	case p.Multihop:
		ttl = routerTTL
	default:
		ttl = 1 // RFC 4271, section 5.1.3: an external peer is on our network
	}
	level, ttlOption, minimumOption := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	tosOption := unix.IP_TOS
	if p.Address.Is6() {
		level, ttlOption, minimumOption = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
		tosOption = unix.IPV6_TCLASS
	}
	if ttl > 0 {
		if err := unix.SetsockoptInt(fd, level, ttlOption, ttl); err != nil {
			return fmt.Errorf("set the TTL to %d: %w", ttl, err)
		}
	}
	if minimum > 0 {
		if err := unix.SetsockoptInt(fd, level, minimumOption, minimum); err != nil {
			return fmt.Errorf("take packets with a TTL of %d and more only: %w", minimum, err)
		}
	}
	const cs6 = 0xc0 // routing protocols come first (RFC 4594)
	return unix.SetsockoptInt(fd, level, tosOption, cs6)
}

// setPassword makes packets from and to an address carry signatures (RFC 2385); "" ends it.
func setPassword(fd int, a netip.Addr, password string) error {
	if password == "" {
		return nil
	}
	return signWith(fd, a, password)
}

func signWith(fd int, a netip.Addr, password string) error {
	key := unix.TCPMD5Sig{Keylen: uint16(len(password))}
	if len(password) > len(key.Key) {
		return fmt.Errorf("the password has %d bytes; TCP MD5 takes %d", len(password), len(key.Key))
	}
	copy(key.Key[:], password)
	if a.Is4() {
		raw := (*unix.RawSockaddrInet4)(unsafe.Pointer(&key.Addr))
		raw.Family, raw.Addr = unix.AF_INET, a.As4()
	} else {
		raw := (*unix.RawSockaddrInet6)(unsafe.Pointer(&key.Addr))
		raw.Family, raw.Addr = unix.AF_INET6, a.As16()
	}
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &key); err != nil {
		return fmt.Errorf("set the password (TCP MD5): %w", err)
	}
	return nil
}

// localAddress returns the address that this node has in a connection.
func localAddress(conn net.Conn) netip.Addr {
	return conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

func remoteAddress(conn net.Conn) netip.Addr {
	return conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}
