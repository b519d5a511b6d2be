package layer2

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// endpoint is one protocol on one interface: its socket, and what this node is called there.
type endpoint struct {
	wire wire
	// link is replaced, never changed: the socket stays open while the interface gets another name or MAC address.
	link   atomic.Pointer[link]
	conn   *packet.Conn
	raw    syscall.RawConn // of conn
	groups *groups         // nil for ARP
	closed atomic.Bool
	// told is whether the neighbours know that this interface, under its name and MAC address, is there. It outlives a loss of carrier:
	// a node that was cut off may have lost its addresses to others meanwhile. For run's goroutine only.
	told   bool
	broken bool // its socket failed; guarded by Announcer.mu
}

// endpointKey names an endpoint; family is AF_INET for ARP and AF_INET6 for neighbour discovery.
type endpointKey struct {
	index  int
	family int
}

// receiveBuffer is large, so that requests wait rather than get lost while the process has no CPU time.
const receiveBuffer = 1 << 20

// openEndpoint returns an endpoint that receives no ARP packets before setSpan.
func openEndpoint(l link, family int) (*endpoint, error) {
	e := &endpoint{}
	e.link.Store(&l)
	protocol, filter := unix.ETH_P_ARP, arpFilter(span{})
	e.wire = arpWire{}
	if family == unix.AF_INET6 {
		protocol, filter = unix.ETH_P_IPV6, ndpFilter()
		e.wire = ndpWire{}
		e.groups = &groups{ifIndex: l.index, joined: map[netip.Addr]int{}}
	}
	var err error
	e.conn, err = packet.Listen(&net.Interface{Index: l.index, HardwareAddr: l.mac.hardware()}, packet.Raw, protocol,
		&packet.Config{Filter: assemble(notForUs(filter))})
	if err != nil {
		return nil, fmt.Errorf("interface %s: open packet socket: %w", l.name, withMend(err))
	}
	if e.raw, err = e.conn.SyscallConn(); err != nil {
		e.close()
		return nil, fmt.Errorf("interface %s: %w", l.name, err)
	}
	_ = e.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	})
	return e, nil
}

func (e *endpoint) identity() identity {
	l := e.link.Load()
	return identity{mac: l.mac, linkLocal: l.linkLocal}
}

// setSpan narrows what wakes the endpoint to ARP packets about addresses within s.
func (e *endpoint) setSpan(s span) error {
	if e.groups != nil {
		return nil
	}
	return e.conn.SetBPF(assemble(notForUs(arpFilter(s))))
}

// send never waits, so that an interface that takes no packets cannot hold up the others. (Neither has it a deadline, which would pass
// whenever the process gets no CPU time.)
func (e *endpoint) send(frame []byte) error {
	var failure error
	err := e.raw.Write(func(fd uintptr) bool {
		_, failure = unix.Write(int(fd), frame)
		return true
	})
	return errors.Join(err, failure)
}

// read calls hear for every packet until the endpoint is closed (nil) or its socket fails.
func (e *endpoint) read(hear func(heard)) error {
	buf := make([]byte, 1514)
	for {
		n, _, err := e.conn.ReadFrom(buf)
		switch {
		case e.closed.Load():
			return nil
		case errors.Is(err, unix.ENETDOWN):
			// Told once when the interface goes down; the socket works again when it comes up.
			continue
		case err != nil:
			return err
		}
		if h, ok := e.wire.parse(buf[:n], e.identity()); ok {
			hear(h)
		}
	}
}

func (e *endpoint) close() {
	e.closed.Store(true)
	_ = e.conn.Close()
	if e.groups != nil {
		e.groups.close()
	}
}

// checkPrivileges returns an error that says what is missing when this process may not send and receive ARP and neighbour discovery packets.
func checkPrivileges() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", withMend(err))
	}
	return unix.Close(fd)
}

func withMend(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return fmt.Errorf("%w: ARP and neighbour discovery need the capability CAP_NET_RAW; give the speaker's container "+
		"securityContext.capabilities.add: [NET_ADMIN, NET_RAW] (the chart does; look for a policy that removes it)", err)
}
