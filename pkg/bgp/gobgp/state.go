package gobgp

import (
	"fmt"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// silent is called when the router has taken its time.
func (s *session) silent(l *link) {
	s.mu.Lock()
	waiting, p := s.link == l && s.state == bgp.OpenSent, s.peer
	s.mu.Unlock()
	if !waiting {
		return
	}
	hint := "GTSM (TTL security) may be in force on its side only"
	if p.TTLSecurity > 0 {
		hint = fmt.Sprintf("GTSM (TTL security) may not be in force on its side, or it is more than %d hops away", p.TTLSecurity)
	}
	s.fail(fmt.Sprintf("the router takes the connection but says nothing: %s", hint))
}

// alive is called with every KEEPALIVE of the router.
func (s *session) alive(l *link) {
	s.mu.Lock()
	up := s.link == l && s.state == bgp.OpenConfirm
	if up {
		s.established = time.Now()
	}
	s.mu.Unlock()
	if up {
		s.enter(bgp.Established)
	}
}

// ended is called when a session is about to end, with the reason; the first one is what counts.
func (s *session) ended(l *link, why string) {
	s.mu.Lock()
	first := s.link == l && s.state != bgp.Active
	s.mu.Unlock()
	if first {
		s.enter(bgp.Active)
		if why != "" {
			s.fail(why)
		}
	}
}

// enter makes the state another.
func (s *session) enter(state bgp.State) {
	s.mu.Lock()
	old := s.state
	s.state = state
	if (old == bgp.Established) != (state == bgp.Established) {
		s.since = time.Now()
	}
	s.mu.Unlock()
	if old != state {
		s.server.notify()
	}
}

// fail records why there is no session.
func (s *session) fail(why string) {
	s.mu.Lock()
	same := s.lastError == why
	s.lastError = why
	s.mu.Unlock()
	if !same {
		s.server.notify()
	}
}

func (s *session) status() bgp.Session {
	v4, v6 := s.server.table.told(s.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := bgp.Session{Peer: s.name, State: s.state, Since: s.since, LastError: s.lastError, PeerASN: s.peer.PeerASN, Counters: s.counters}
	if s.link != nil {
		out.Local = s.local
		if s.said.asn != 0 {
			out.PeerASN = s.said.asn
		}
	}
	if s.state == bgp.Established {
		if s.told4 {
			out.Announced += v4
		}
		if s.told6 {
			out.Announced += v6
		}
	}
	return out
}

func (s *session) sent(kind uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counters
	count(kind, &c.TotalSent, &c.OpensSent, &c.UpdatesSent, &c.NotificationsSent, &c.KeepalivesSent, &c.RefreshesSent)
}

func (s *session) received(kind uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counters
	count(kind, &c.TotalReceived, &c.OpensReceived, &c.UpdatesReceived, &c.NotificationsReceived, &c.KeepalivesReceived, &c.RefreshesReceived)
}

func count(kind uint8, total *uint64, kinds ...*uint64) {
	*total++
	if kind >= 1 && int(kind) <= len(kinds) {
		*kinds[kind-1]++
	}
}
