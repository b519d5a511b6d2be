package bfd

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

// receive processes a packet.
func (s *Speaker) receive(now time.Time, r *received) {
	x, why := s.find(r)
	if why != "" {
		s.metrics.dropped.WithLabelValues(string(why)).Inc()
		s.quiet.dropped(now, r, why)
		if x != nil {
			if hint := hint(r, why, x); hint != "" {
				x.note(now, hint)
				s.tell(x)
			}
		}
		return
	}
	if !x.key.local.IsValid() && x.state != Up && x.learnt != r.local && (x.path == nil || x.path.source().Addr() != r.local) {
		// The peer's configuration has this address of ours, or it would not send there.
		x.learnt = r.local
		x.closePath()
	}
	x.in++
	ups := x.ups
	if x.recv(now, &r.packet); x.ups > ups {
		x.lastError = "" // whatever it was, it no longer stands in the way
	}
	s.look(now, x)
}

// find returns the packet's session, or why it has to be dropped, and then perhaps the session that it was meant for.
func (s *Speaker) find(r *received) (*session, drop) {
	var x *session
	if r.drop == "" && r.packet.yours != 0 {
		if x = s.byDiscriminator[r.packet.yours]; x == nil {
			return nil, dropDiscriminator
		}
		k := x.key
		if k.peer != r.peer || k.multihop != r.multihop || k.device != "" && k.device != r.device || k.local.IsValid() && k.local != r.local {
			return nil, dropStranger
		}
	} else if x = s.byAddress(r); r.drop != "" {
		return x, r.drop
	} else if x == nil {
		return nil, dropStranger
	}
	if x.key.multihop && r.ttl < x.config.MinimumTTL {
		return x, dropTTL
	}
	return x, ""
}

// byAddress finds the session that fits the packet's addresses and device best.
func (s *Speaker) byAddress(r *received) *session {
	k := key{peer: r.peer, local: r.local, device: r.device, multihop: r.multihop}
	for {
		if x := s.sessions[k]; x != nil {
			return x
		}
		switch {
		case k.local.IsValid():
			k.local = netip.Addr{}
		case k.device != "":
			k.local, k.device = r.local, ""
		default:
			return nil
		}
	}
}

// look does what there is to do for a session.
func (s *Speaker) look(now time.Time, x *session) {
	for p, ok := x.next(now); ok; p, ok = x.next(now) {
		s.send(now, x, p)
	}
	if x.gone() {
		s.remove(now, x)
		return
	}
	s.due.put(x, x.wake())
	s.tell(x)
}

func (s *Speaker) send(now time.Time, x *session, p packet) {
	if x.path != nil && x.state != Up && !x.key.local.IsValid() && now.Sub(x.opened) >= refreshInterval {
		x.closePath()
	}
	if x.path == nil {
		local := x.key.local
		if !local.IsValid() {
			local = x.learnt
		}
		if x.port == 0 {
			x.port = s.freePort()
		}
		var err error
		if x.path, err = s.network.open(x.config, local, x.port); err != nil {
			x.path, x.learnt = nil, netip.Addr{}
			x.note(now, err.Error())
			return
		}
		delete(s.ports, x.port)
		x.opened, x.port = now, x.path.source().Port()
		s.ports[x.port] = true
	}
	s.buffer = p.append(s.buffer[:0])
	if err := x.path.send(s.buffer); err != nil {
		x.note(now, err.Error())
		if !passing(err) {
			x.closePath()
		}
		return
	}
	x.out++
	if x.lastError != "" && now.Sub(x.erred) >= errorAge {
		x.lastError = ""
	}
}

// Source ports are from the range that RFC 5881, section 4, allows; portTries is how many are tried until one is found that is free.
const (
	firstPort, lastPort = 49152, 65535
	portTries           = 64
)

func randomPort() uint16 { return firstPort + uint16(rand.IntN(lastPort-firstPort+1)) }

// freePort returns a port that no other session has, if there are not so many of them that it would take long to find.
func (s *Speaker) freePort() uint16 {
	port := randomPort()
	for n := 1; s.ports[port] && n < portTries; n++ {
		port = randomPort()
	}
	s.ports[port] = true
	return port
}

func (x *session) note(now time.Time, problem string) {
	x.lastError, x.erred = problem, now
}

func (x *session) closePath() {
	if x.path != nil {
		x.path.close()
		x.path = nil
	}
}

// tidy listens where it has to be listened, and tells of the sessions for which that fails or no longer does.
func (s *Speaker) tidy(now time.Time) {
	wanted := make(map[endpoint]bool, len(s.endpoints))
	devices := false
	for e := range s.endpoints {
		wanted[e] = true
		devices = devices || e.device != ""
	}
	before := s.deaf
	s.deaf = s.network.listen(wanted)
	s.tidyAt = time.Time{}
	if devices || len(s.deaf) > 0 {
		s.tidyAt = now.Add(tidyInterval)
	}
	if len(before) > 0 || len(s.deaf) > 0 {
		for _, x := range s.sessions {
			s.tell(x)
		}
	}
}

// tell remembers what Changed has to be called for.
func (s *Speaker) tell(x *session) {
	if x.state == AdminDown {
		return
	}
	t := s.status(x)
	known := x.told
	x.told = t
	known.PacketsIn, known.PacketsOut = t.PacketsIn, t.PacketsOut
	if t == known {
		return
	}
	s.news = append(s.news, t)
	s.logChange(known, t)
}
