package gobgp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

const (
	// firstPause is between the end of a session and the next attempt, which doubles up to the peer's ConnectTime.
	firstPause = 250 * time.Millisecond
	// usualConnectTime is for peers without a ConnectTime.
	usualConnectTime = 5 * time.Second
	// dialPatience is how long a router may take to answer an attempt. The kernel asks it at 0, 1 and 3 s.
	dialPatience = 4 * time.Second
	// lasting is how long a session has held whose end does not slow down the next attempt.
	lasting = 10 * time.Second
	// enginePatience is how long GoBGP may take to accept a connection of ours.
	enginePatience = 5 * time.Second
)

// acceptedTooEarly is what GoBGP warns of when it is not ready for a peer that it just learned of. It will be in a moment.
const acceptedTooEarly = "Closed an accepted connection"

// session keeps the session with one peer.
type session struct {
	name     string
	server   *Server
	address  netip.Addr // what GoBGP knows the peer by
	accepted chan *net.TCPConn
	wake     chan struct{}
	cancel   context.CancelFunc
	done     chan struct{}

	mu           sync.Mutex
	peer         bgp.Peer
	interrupt    context.CancelFunc // ends an attempt to connect
	link         *link              // nil without a connection
	state        bgp.State
	since        time.Time // when the session came up or went down
	lastError    string
	local        netip.Addr
	said         open // the router's OPEN message
	told4, told6 bool // the families that are announced
	established  time.Time
	counters     bgp.Counters
}

func newSession(s *Server, p bgp.Peer, address netip.Addr) *session {
	return &session{
		name: p.Name, server: s, address: address, accepted: make(chan *net.TCPConn, 1), wake: make(chan struct{}, 1),
		done: make(chan struct{}), peer: p, state: bgp.Idle, since: time.Now(),
	}
}

func (s *session) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(ctx)
}

// stop ends the session with a NOTIFICATION, or without a word if that is nil, and returns when it is gone.
func (s *session) stop(notification []byte) {
	s.cancel()
	s.end(notification, "")
	<-s.done
}

// reset ends the session at once.
func (s *session) reset(why string) { s.end(cease(ceaseReset, why), why) }

// again ends the session for another one: with a NOTIFICATION, or without a word if that is nil.
func (s *session) again(notification []byte) {
	s.end(notification, "the configuration was changed")
	s.retry()
}

// retry makes an attempt to connect begin anew, at once.
func (s *session) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt != nil {
		s.interrupt()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) end(notification []byte, why string) {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.close(notification, why)
	}
}

// goodbye returns nil for a peer that keeps routes while this node is away, and otherwise what is to be said to it.
func goodbye(p *bgp.Peer, notification []byte) []byte {
	if p.RestartTime > 0 {
		return nil
	}
	return notification
}

func (s *session) config() bgp.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// configure makes the peer another one of the same name.
func (s *session) configure(p bgp.Peer) {
	s.mu.Lock()
	old, l := s.peer, s.link
	s.peer = p
	s.mu.Unlock()
	switch {
	case !sameSession(&old, &p):
		farewell := cease(ceaseConfiguration, "")
		if p.RestartTime > 0 && old.Address == p.Address && old.Source == p.Source && old.Device == p.Device &&
			old.LocalASN == p.LocalASN && old.PeerASN == p.PeerASN {
			farewell = goodbye(&old, farewell) // there will be another session to end the router's patience
		}
		s.again(farewell)
	case l != nil && (old.NextHop4 != p.NextHop4 || old.NextHop6 != p.NextHop6):
		s.announceAgain(l)
	}
}

// announceAgain tells the router its routes with next hops as they are to be.
func (s *session) announceAgain(l *link) {
	s.mu.Lock()
	o, p := s.said, s.peer
	s.mu.Unlock()
	if o.asn == 0 {
		return // there will be a time for it
	}
	changed, err := s.setNextHops(l, &p, o)
	if err == nil && changed {
		err = s.server.engine.ResetPeer(context.Background(), &api.ResetPeerRequest{
			Address: s.address.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
		})
	}
	if err != nil {
		s.fail(fmt.Sprintf("change next hops: %v", err))
	}
}

// run keeps a session until ctx is done.
func (s *session) run(ctx context.Context) {
	defer close(s.done)
	defer s.dropAccepted()
	pause := firstPause
	for ctx.Err() == nil {
		attempt, interrupt := context.WithCancel(ctx)
		s.mu.Lock()
		p := s.peer
		s.interrupt = interrupt
		s.mu.Unlock()
		s.enter(bgp.Active)
		conn, err := s.connect(attempt, &p)
		interrupted := attempt.Err() != nil
		interrupt()
		if err == nil {
			if s.serve(ctx, &p, conn) {
				pause = firstPause
			}
			s.enter(bgp.Active)
			if p.Passive {
				continue
			}
		} else if !interrupted {
			s.fail(err.Error())
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			pause = firstPause
		case <-time.After(pause + rand.N(pause/4)): // RFC 4271, section 10
			most := p.ConnectTime
			if most <= 0 {
				most = usualConnectTime
			}
			pause = min(2*pause, max(most, firstPause))
		}
	}
}

// connect returns a connection to the router, or that it made to us.
func (s *session) connect(ctx context.Context, p *bgp.Peer) (*net.TCPConn, error) {
	if !p.IPv4 && !p.IPv6 {
		return nil, errors.New("the peer is told routes of neither family") // GoBGP would choose one
	}
	if !p.Passive {
		return dial(ctx, p)
	}
	if err := s.server.listen(p); err != nil {
		return nil, err
	}
	select {
	case conn := <-s.accepted:
		return conn, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// accept takes a connection that the router made. The last one is the one that it means.
func (s *session) accept(conn *net.TCPConn) {
	for {
		select {
		case s.accepted <- conn:
			return
		default:
			s.dropAccepted()
		}
	}
}

func (s *session) dropAccepted() {
	select {
	case conn := <-s.accepted:
		conn.Close()
	default:
	}
}

// serve passes messages on until the connection ends, and returns whether there was a session for some time.
func (s *session) serve(ctx context.Context, p *bgp.Peer, router *net.TCPConn) bool {
	defer router.Close()
	background := context.Background() // GoBGP does not wait for long, and must be told
	if err := s.server.engine.AddPeer(background, &api.AddPeerRequest{Peer: enginePeer(p, s.address)}); err != nil {
		s.fail(fmt.Sprintf("GoBGP does not take the peer: %v", err))
		return false
	}
	defer func() {
		if err := s.server.engine.DeletePeer(background, &api.DeletePeerRequest{Address: s.address.String()}); err != nil {
			s.fail(fmt.Sprintf("GoBGP does not let the peer go: %v", err))
		}
	}()
	engine, first, err := s.enterEngine(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.fail(fmt.Sprintf("GoBGP does not talk: %v", err))
		}
		return false
	}
	defer engine.Close()
	l := &link{session: s, router: router, engine: engine, holdTime: p.HoldTime, routerID: s.server.common().routerID}
	s.mu.Lock()
	s.link, s.local, s.said, s.established = l, localAddress(router), open{}, time.Time{}
	current := sameSession(&s.peer, p) && ctx.Err() == nil
	s.mu.Unlock()
	// Whoever changes anything does that first and looks for a link afterwards.
	if !current || l.routerID != s.server.common().routerID {
		l.close(nil, "") // nothing was said yet
	}
	s.enter(bgp.OpenSent)
	l.run(first)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = nil
	return !s.established.IsZero() && time.Since(s.established) > lasting
}

// enterEngine connects to GoBGP as the peer and returns its first message.
func (s *session) enterEngine(ctx context.Context) (*net.TCPConn, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.address.AsSlice()}}
	dialer.SetMultipathTCP(false)
	for {
		conn, err := dialer.DialContext(ctx, "tcp4", s.server.endpoint.String())
		if err != nil {
			return nil, nil, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(enginePatience))
		m, err := readMessage(conn)
		if err == nil {
			_ = conn.SetReadDeadline(time.Time{})
			return conn.(*net.TCPConn), m, nil
		}
		conn.Close()
		select {
		case <-ctx.Done():
			return nil, nil, errors.Join(ctx.Err(), err)
		case <-time.After(time.Millisecond):
		}
	}
}

// opened is called with what the router's OPEN message says, before GoBGP sees it. It returns a NOTIFICATION if there can't be a
// session.
func (s *session) opened(l *link, o open) (refusal []byte, why string) {
	s.mu.Lock()
	p := s.peer
	s.mu.Unlock()
	if p.PeerASN == 0 && o.asn == p.LocalASN {
		return notification(packet.BGP_ERROR_OPEN_MESSAGE_ERROR, packet.BGP_ERROR_SUB_BAD_PEER_AS),
			fmt.Sprintf("the router's ASN is %d, which is this node's, too: that is not an external peer", o.asn)
	}
	s.mu.Lock()
	s.said = o
	s.mu.Unlock()
	if _, err := s.setNextHops(l, &p, o); err != nil {
		return cease(ceaseShutdown, ""), fmt.Sprintf("set next hops: %v", err)
	}
	s.enter(bgp.OpenConfirm)
	return nil, ""
}

func (s *session) routerASN() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.asn
}

// setNextHops says what the router is told to send packets to. A family for which there is nothing to say is not announced. It returns
// whether anything differs.
func (s *session) setNextHops(l *link, p *bgp.Peer, o open) (bool, error) {
	local := localAddress(l.router).WithZone("")
	v4, v6 := p.NextHop4, p.NextHop6
	if local.Is4() {
		v4 = local
	} else {
		v6 = local
		if !v4.IsValid() && o.extended {
			v4 = local // RFC 8950
		}
	}
	s.mu.Lock()
	s.told4, s.told6 = p.IPv4 && o.v4 && v4.IsValid(), p.IPv6 && o.v6 && v6.IsValid()
	s.mu.Unlock()
	switch {
	case p.IPv4 && o.v4 && !v4.IsValid():
		s.fail(fmt.Sprintf("IPv4 routes are not announced: this node has no IPv4 address on the network of %v, and the router does not take "+
			"IPv6 next hops for them (RFC 8950, extended next hop)", p.Address))
	case p.IPv6 && o.v6 && !v6.IsValid():
		s.fail(fmt.Sprintf("IPv6 routes are not announced: this node has no IPv6 address on the network of %v", p.Address))
	}
	return s.server.table.nextHops(s.address, v4, v6)
}
