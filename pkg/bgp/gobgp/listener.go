package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// acceptPause is for when the process has no file descriptor to spare.
const acceptPause = time.Second

// listenerKey tells listeners apart.
type listenerKey struct {
	port   uint16
	device string
	v6     bool
}

func (k listenerKey) String() string {
	if k.device == "" {
		return fmt.Sprint("TCP port ", k.port)
	}
	return fmt.Sprintf("TCP port %d of %s", k.port, k.device)
}

// listener accepts connections of passive peers.
type listener struct {
	*net.TCPListener
	passwords map[netip.Addr]string // that the kernel knows
}

func (s *Server) key(p *bgp.Peer) listenerKey {
	return listenerKey{port: s.settings.port, device: p.Device, v6: p.Address.Is6()}
}

// listen sees to it that a passive peer can connect.
func (s *Server) listen(p *bgp.Peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.key(p)
	if key.port == 0 {
		return errors.New("the peer is passive, but this node does not listen: its listen port is 0")
	}
	if s.stopped {
		return net.ErrClosed
	}
	l := s.listeners[key]
	if l == nil {
		network := "tcp4"
		if key.v6 {
			network = "tcp6"
		}
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error {
				// A router with GTSM wants the first answer, too, to come from near; which router it is, turns out later.
				level, option := unix.IPPROTO_IP, unix.IP_TTL
				if key.v6 {
					level, option = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
				}
				if err := unix.SetsockoptInt(fd, level, option, routerTTL); err != nil || key.device == "" {
					return err
				}
				return unix.BindToDevice(fd, key.device)
			})
		}}
		config.SetMultipathTCP(false)
		made, err := config.Listen(context.Background(), network, fmt.Sprintf(":%d", key.port))
		if err != nil {
			return fmt.Errorf("listen on %v: %w", key, bare(err))
		}
		l = &listener{TCPListener: made.(*net.TCPListener), passwords: map[netip.Addr]string{}}
		s.listeners[key] = l
		go s.accept(key, l)
	}
	return l.password(p.Address, p.Password)
}

// password sets with what password an address may connect.
func (l *listener) password(a netip.Addr, password string) error {
	if l.passwords[a] == password {
		return nil
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if err := control(raw, func(fd int) error { return signWith(fd, a, password) }); err != nil {
		return err
	}
	l.passwords[a] = password
	return nil
}

// closeListeners closes those that no peer needs, and forgets the passwords of peers that are gone.
func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := map[listenerKey]map[netip.Addr]bool{}
	for _, session := range s.sessions {
		session.mu.Lock()
		if p := &session.peer; p.Passive {
			key := s.key(p)
			if needed[key] == nil {
				needed[key] = map[netip.Addr]bool{}
			}
			needed[key][p.Address] = true
		}
		session.mu.Unlock()
	}
	for key, l := range s.listeners {
		if needed[key] == nil {
			l.Close()
			delete(s.listeners, key)
			continue
		}
		for a := range l.passwords {
			if needed[key][a] {
				continue
			}
			if err := l.password(a, ""); err != nil {
				s.log.Warn("the kernel keeps the password of a peer that is gone", "address", a, "error", err)
				continue
			}
			delete(l.passwords, a)
		}
	}
}

// accept hands connections to the sessions that wait for them.
func (s *Server) accept(key listenerKey, l *listener) {
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("Can't accept a connection of a BGP peer.", "listener", key, "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if !s.hand(conn, key) {
			conn.Close()
		}
	}
}

func (s *Server) hand(conn *net.TCPConn, key listenerKey) bool {
	from := remoteAddress(conn)
	for _, session := range s.all() {
		session.mu.Lock()
		p, l, up := session.peer, session.link, session.state == bgp.Established
		session.mu.Unlock()
		if !p.Passive || p.Address != from || p.Device != key.device {
			continue
		}
		raw, err := conn.SyscallConn()
		if err == nil {
			err = control(raw, func(fd int) error { return setTTL(fd, &p) })
		}
		if err != nil {
			session.fail(fmt.Sprintf("accept a connection: %v", err))
			return false
		}
		if l != nil {
			// A router that restarted gracefully comes again before the old connection is known to be dead (RFC 4724, section 4.2);
			// otherwise the connection that has a session stays (RFC 4271, section 6.8).
			if up && p.RestartTime == 0 {
				return false
			}
			l.close(nil, "the router made another connection")
		}
		session.accept(conn)
		return true
	}
	return false
}
