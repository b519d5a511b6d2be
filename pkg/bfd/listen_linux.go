package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what the kernel may keep for us, in bytes, of packets that come while this process is not running.
const receiveBuffer = 1 << 20

// listener reads the packets that come to an endpoint.
type listener struct {
	file   *os.File
	raw    syscall.RawConn
	device uint32 // the index of the interface that the socket is bound to; 0 for none
	quit   chan struct{}
	done   sync.WaitGroup
	late   reader // for drain
}

func (k *kernel) listen(wanted map[endpoint]bool) map[endpoint]error {
	for e, l := range k.listeners {
		if !wanted[e] || l.stale(e) {
			l.close()
			delete(k.listeners, e)
		}
	}
	var failures map[endpoint]error
	for e := range wanted {
		if k.listeners[e] != nil {
			continue
		}
		l, err := k.newListener(e)
		if err != nil {
			if failures == nil {
				failures = map[endpoint]error{}
			}
			failures[e] = err
			continue
		}
		k.listeners[e] = l
	}
	return failures
}

func (k *kernel) close() {
	for e, l := range k.listeners {
		l.close()
		delete(k.listeners, e)
	}
}

func (k *kernel) drain(handle func(*received)) {
	for e, l := range k.listeners {
		// Control does not wait for the goroutine that reads, as Read would.
		l.raw.Control(func(fd uintptr) {
			for l.late.read(fd) == nil {
				if r, ok := l.late.received(e); ok {
					handle(&r)
				}
			}
		})
	}
}

func (k *kernel) newListener(e endpoint) (*listener, error) {
	port := Session{Multihop: e.multihop}.port()
	fd, err := newSocket(e)
	if err != nil {
		return nil, fmt.Errorf("opening a socket for device %q: %w", e.device, err)
	}
	l := &listener{quit: make(chan struct{})}
	if err = l.prepare(fd, e); err == nil {
		err = k.bind(fd, e, port)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("UDP port %d is taken, does another BFD daemon run on this node? %w", port, err)
		}
		return nil, fmt.Errorf("listening on UDP port %d: %w", port, err)
	}
	l.file = os.NewFile(uintptr(fd), "bfd") // not blocking, so that the runtime's poller waits for it
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	l.done.Go(func() { l.run(e, k.inbox) })
	return l, nil
}

func (l *listener) prepare(fd int, e endpoint) (err error) {
	if e.device != "" {
		if l.device, err = interfaceIndex(fd, e.device); err != nil {
			return err
		}
	}
	// Without the privilege for more, what the system allows has to do.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	level, options := unix.IPPROTO_IP, []int{unix.IP_RECVTTL, unix.IP_PKTINFO}
	if e.v6 {
		level, options = unix.IPPROTO_IPV6, []int{unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVPKTINFO}
	}
	for _, option := range options {
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return err
		}
	}
	return nil
}

// bind takes the port. To the kernel a socket for one device and one for all are in each other's way unless both agree to share the port.
// Ours do for the moment: if they did for good, another daemon could take the port too, and then the packets, without anybody noticing.
func (k *kernel) bind(fd int, e endpoint, port uint16) error {
	share := func(on int) {
		for other, l := range k.listeners {
			if other.v6 == e.v6 && other.multihop == e.multihop {
				l.raw.Control(func(sibling uintptr) {
					unix.SetsockoptInt(int(sibling), unix.SOL_SOCKET, unix.SO_REUSEADDR, on)
					unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on)
				})
			}
		}
	}
	share(1)
	defer share(0)
	wildcard := netip.IPv4Unspecified()
	if e.v6 {
		wildcard = netip.IPv6Unspecified()
	}
	return unix.Bind(fd, socketAddress(wildcard, port, 0))
}

// stale says that the endpoint's device is not the one any more that the socket is bound to: it was deleted, and perhaps made again.
func (l *listener) stale(e endpoint) (stale bool) {
	if e.device == "" {
		return false
	}
	l.raw.Control(func(fd uintptr) {
		index, err := interfaceIndex(int(fd), e.device)
		stale = err != nil || index != l.device
	})
	return stale
}

func (l *listener) close() {
	close(l.quit)
	l.file.Close()
	l.done.Wait()
}

// run passes packets on until the file is closed.
func (l *listener) run(e endpoint, inbox chan<- received) {
	var r reader
	var err error
	read := func(fd uintptr) bool {
		err = r.read(fd)
		return err != unix.EAGAIN
	}
	for l.raw.Read(read) == nil {
		if err != nil {
			continue // what became of a packet that somebody else sent; the next call waits
		}
		p, ok := r.received(e)
		if !ok {
			continue
		}
		if p.drop != "" {
			select { // what is of no use must not hold up what is
			case inbox <- p:
			default:
			}
			continue
		}
		select {
		case inbox <- p:
		case <-l.quit:
		}
	}
}

// reader reads packets without allocating, which package net and the wrappers in package unix can't.
type reader struct {
	header  unix.Msghdr
	vector  unix.Iovec
	source  unix.RawSockaddrInet6 // the larger of two
	control [128]byte
	buffer  [256]byte
	length  int
}

func (r *reader) read(fd uintptr) error {
	r.vector.Base = &r.buffer[0]
	r.vector.SetLen(len(r.buffer))
	r.header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&r.source)), Namelen: uint32(unsafe.Sizeof(r.source)), Iov: &r.vector, Control: &r.control[0]}
	r.header.SetIovlen(1)
	r.header.SetControllen(len(r.control))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.header)), unix.MSG_DONTWAIT)
	r.length = int(n)
	if errno != 0 {
		return errno
	}
	return nil
}

// received examines the packet that was read. It is not ok if the kernel has not told what has to be known.
func (r *reader) received(e endpoint) (received, bool) {
	var peer, local netip.Addr
	ttl := -1
	if e.v6 {
		peer = netip.AddrFrom16(r.source.Addr)
	} else {
		peer = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.source)).Addr)
	}
	for rest := r.control[:r.header.Controllen]; len(rest) >= unix.SizeofCmsghdr; {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return received{}, false
		}
		rest = next
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_TTL, header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_HOPLIMIT:
			ttl = int(binary.NativeEndian.Uint32(data))
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			local = netip.AddrFrom4([4]byte(data[8:12])) // the packet's destination, not the address of the route
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			local = netip.AddrFrom16([16]byte(data[:16]))
		}
	}
	if ttl < 0 || ttl > 255 || !local.IsValid() {
		return received{}, false
	}
	return arrived(e, peer, local, uint8(ttl), r.buffer[:r.length]), true
}
