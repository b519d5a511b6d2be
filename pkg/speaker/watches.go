package speaker

import (
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// watchPatience is how long BFD waits for the first BGP session with a peer.
const watchPatience = 5 * time.Second

// watches says which peers BFD is to watch. It begins when BGP is up: FRR 8 replaces its BFD session just then, which would look like a
// failure to both sides if it were up already, and end the BGP session once. Routers that wait for BFD in their turn get it a little later.
type watches map[string]vigil

type vigil struct {
	session bfd.Session
	since   time.Time // when it was first wanted
	begun   bool
}

// due returns the BFD sessions that are to be now.
func (w *watches) due(s *sessions, live []bgp.Session, now time.Time) []bfd.Session {
	old := *w
	*w = watches{}
	var all []bfd.Session
	for i := range s.peers {
		name := s.peers[i].Name
		session, ok := s.bfd[name]
		if !ok {
			continue
		}
		is := old[name]
		if is.since.IsZero() || is.session.Peer != session.Peer || is.session.Device != session.Device {
			is = vigil{since: now}
		}
		is.session = session
		up := slices.ContainsFunc(live, func(l bgp.Session) bool { return l.Peer == name && l.State == bgp.Established })
		is.begun = is.begun || up || now.Sub(is.since) >= watchPatience
		(*w)[name] = is
		if is.begun {
			all = append(all, session)
		}
	}
	return all
}

// next returns when the next one is due for having waited, at most the time given.
func (w *watches) next(at time.Time) time.Time {
	for _, is := range *w {
		if t := is.since.Add(watchPatience); !is.begun && t.Before(at) {
			at = t
		}
	}
	return at
}
