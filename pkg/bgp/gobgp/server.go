// Package gobgp is a BGP engine made of GoBGP v4.8.0 and sessions of our own.
//
// GoBGP holds the routes, says by policy which peer is told what, packs UPDATEs, negotiates and keeps sessions alive. What it does
// not hold is the TCP connections to the routers: this package makes those, and passes the messages on between a router and GoBGP
// over the loopback interface, where each peer has an address of its own in 127.0.0.0/8. A peer is in GoBGP only as long as it has
// a connection. That is for what v4.8.0 can't do, or does otherwise than a load balancer needs it:
//
//   - It keeps every route that a peer sends, though policy rejects it (internal/pkg/table/adj.go:43, called in pkg/server/peer.go:727
//     before any policy). Here UPDATEs from a router end at the socket: they cost no memory, and no parser can stumble over them.
//   - A session that was reset may be reset again and again: the order waits in a queue that outlives the session (pkg/server/peer.go:602,
//     issue 3561). Here a session begins with an empty queue.
//   - After a restart it holds all routes back until all peers have said that they are done or a timer ends (pkg/server/server.go:1863),
//     and it says that it forwarded meanwhile only if it was told that it restarted, not when just a connection broke
//     (pkg/server/fsm.go:1152). Here both bits are set in the OPEN message, always, and GoBGP never knows of a restart.
//   - Why a connection can't be made is in its debug log only; it first tries after 1.5 to 2 s (pkg/server/fsm.go:923) and, after a
//     failure, waits 5 s more.
//   - It tells peers apart by their addresses alone: not two routers with one link-local address on two interfaces.
//   - A hold time of 0 means 90 s to it (pkg/config/oc/default.go:114).
//
// What stays: a route of one family with a next hop of the other (RFC 8950) goes in an UPDATE of its own (internal/pkg/table/message.go:664),
// which is undone on the way to the router; a withdrawn prefix is withdrawn from peers that were not told of it, too
// (internal/pkg/table/policy.go:3983), which they ignore; and a link bandwidth above 4.29 GB/s is told as that
// much (pkg/packet/bgp/bgp.go:13559).
package gobgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// engineID is the BGP identifier that GoBGP has. Peers are told the node's.
const engineID = "127.0.0.1"

const (
	// quiet is for how long GoBGP has no UPDATE to pass on when it has told everything.
	quiet = 100 * time.Millisecond
	// settlePatience is how long Stop waits for that.
	settlePatience = time.Second
)

// Server keeps the sessions of one node and announces its routes. Its methods may be called concurrently.
type Server struct {
	log     *slog.Logger
	changed chan struct{}

	applying sync.Mutex // held while Apply or Stop runs
	engine   *server.BgpServer
	endpoint netip.AddrPort // where engine listens
	table    *table
	ordered  time.Time // when routes last changed

	mu        sync.Mutex
	settings  settings
	sessions  map[string]*session
	listeners map[listenerKey]*listener
	stopped   bool
}

// settings are the same for all peers.
type settings struct {
	routerID netip.Addr
	port     uint16 // where passive peers connect to
}

// New returns a Server without peers and routes.
func New(log *slog.Logger) *Server {
	return &Server{log: log, changed: make(chan struct{}, 1), sessions: map[string]*session{}, listeners: map[listenerKey]*listener{}}
}

// Apply makes a Change so. Routes come before peers, so that the first UPDATEs and the End-of-RIB of a session are complete. It fails
// only if GoBGP does; whatever is wrong with a single peer is its Session's LastError.
func (s *Server) Apply(c bgp.Change) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.isStopped() {
		return errors.New("the BGP engine was stopped")
	}
	if !c.RouterID.Is4() {
		return fmt.Errorf("the router ID %v is not an IPv4 address", c.RouterID)
	}
	if s.engine == nil {
		if err := s.start(); err != nil {
			return err
		}
	}
	moved, listens := s.set(settings{routerID: c.RouterID, port: c.ListenPort})
	s.remove(c.GonePeers)
	for i := range c.Peers {
		s.table.know(c.Peers[i].Name, c.Peers[i].LocalASN)
	}
	if err := s.table.apply(c.Routes, c.GoneRoutes); err != nil {
		return err
	}
	if len(c.Routes)+len(c.GoneRoutes) > 0 {
		s.ordered = time.Now()
	}
	for _, session := range s.all() {
		p := session.config()
		switch {
		case moved:
			session.again(goodbye(&p, cease(ceaseConfiguration, "")))
		case listens && p.Passive:
			session.retry()
		}
	}
	for i := range c.Peers {
		if session := s.session(c.Peers[i].Name); session != nil {
			session.configure(c.Peers[i])
		} else {
			s.add(c.Peers[i])
		}
	}
	s.closeListeners()
	s.notify()
	return nil
}

// start runs GoBGP on an address that nobody but this process uses.
func (s *Server) start() error {
	logger := slog.New(newHandler(s.log, s.nameOf))
	var err error
	for range 10 {
		engine := server.NewBgpServer(server.LoggerOption(logger, nil))
		go engine.Serve()
		var endpoint netip.AddrPort
		if endpoint, err = freeEndpoint(); err != nil {
			return err
		}
		// The ASN is that of no peer: each has its own.
		err = engine.StartBgp(context.Background(), &api.StartBgpRequest{Global: &api.Global{
			Asn: 65535, RouterId: engineID, ListenPort: int32(endpoint.Port()), ListenAddresses: []string{endpoint.Addr().String()},
			// IPv4 and IPv6 unicast, as GoBGP numbers them; tables for all that it knows take 10 MB while empty.
			Families: []uint32{0, 1},
		}})
		if err == nil {
			s.engine, s.endpoint = engine, endpoint
			s.table, err = newTable(engine)
			return err
		}
		engine.Stop()
	}
	return fmt.Errorf("start GoBGP on the loopback interface, which has to be up: %w", err)
}

// freeEndpoint returns an address and port that nobody listens on for now.
func freeEndpoint() (netip.AddrPort, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen on the loopback interface, which has to be up: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// set returns whether the router ID is another now, which peers learn only in another session, and whether the port is.
func (s *Server) set(to settings) (moved, listens bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.settings
	s.settings = to
	return old.routerID != to.routerID, old.port != to.port
}

func (s *Server) common() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

func (s *Server) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

func (s *Server) session(name string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[name]
}

// all returns the sessions sorted by peer.
func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*session
	for _, session := range s.sessions {
		list = append(list, session)
	}
	slices.SortFunc(list, func(a, b *session) int { return strings.Compare(a.name, b.name) })
	return list
}

func (s *Server) add(p bgp.Peer) {
	session := newSession(s, p, s.table.address(p.Name))
	s.mu.Lock()
	s.sessions[p.Name] = session
	s.mu.Unlock()
	session.start()
}

func (s *Server) remove(names []string) {
	var all sync.WaitGroup
	for _, name := range names {
		s.mu.Lock()
		session := s.sessions[name]
		delete(s.sessions, name)
		s.mu.Unlock()
		if session != nil {
			all.Go(func() {
				session.stop(cease(ceaseDeconfigured, ""))
				if err := s.table.forget(session.address); err != nil {
					s.log.Warn("GoBGP keeps what it knew of a peer that is gone", "peer", name, "error", err)
				}
			})
		}
	}
	all.Wait()
}

// Reset ends the peer's session now, as if the peer had gone. It does nothing for a peer without a session.
func (s *Server) Reset(peer, why string) {
	if session := s.session(peer); session != nil {
		session.reset(why)
	}
}

// Sessions tells how things stand, sorted by peer.
func (s *Server) Sessions() []bgp.Session {
	var list []bgp.Session
	for _, session := range s.all() {
		list = append(list, session.status())
	}
	return list
}

// Changed says that a session's State, LastError or Announced may be another now.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Stop ends all sessions: those with graceful restart without a word, so that peers keep the routes, the others with a Cease. What Apply
// was told last is told before.
func (s *Server) Stop() {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return
	}
	s.settle()
	var all sync.WaitGroup
	for _, session := range s.all() {
		all.Go(func() {
			p := session.config()
			session.stop(goodbye(&p, cease(ceaseShutdown, "")))
		})
	}
	all.Wait()
	s.mu.Lock()
	s.sessions = map[string]*session{}
	s.mu.Unlock()
	s.closeListeners()
	if s.engine != nil {
		s.engine.Stop()
	}
}

// settle waits until routers know what Apply was told last: those that keep routes while this node is away would keep what has just been
// withdrawn. GoBGP passes it on in its own time and does not say when that is done.
func (s *Server) settle() {
	sent, since, deadline := s.updatesSent(), s.ordered, time.Now().Add(settlePatience)
	for time.Since(since) < quiet && time.Now().Before(deadline) {
		time.Sleep(quiet / 10)
		if n := s.updatesSent(); n != sent {
			sent, since = n, time.Now()
		}
	}
}

// updatesSent counts UPDATEs to routers that keep routes while this node is away.
func (s *Server) updatesSent() (n uint64) {
	for _, session := range s.all() {
		session.mu.Lock()
		if session.peer.RestartTime > 0 {
			n += session.counters.UpdatesSent
		}
		session.mu.Unlock()
	}
	return n
}

// nameOf returns the peer that GoBGP knows by an address on the loopback interface.
func (s *Server) nameOf(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, session := range s.sessions {
		if session.address.String() == address {
			return name
		}
	}
	return ""
}
