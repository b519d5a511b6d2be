package speaker

import (
	"maps"
	"net/netip"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

// mergeInbox takes in what the other speakers said.
func (s *Speaker) mergeInbox(now time.Time) {
	for _, message := range s.replica.takeInbox() {
		claims, _, err := announce.Decode(message)
		if err != nil {
			s.log.Warn("message of another speaker not understood: all speakers have to run versions that fit together", "error", err)
			continue
		}
		for _, c := range claims {
			if s.replica.merge(c) {
				s.touchAddr(c.Addr)
				if c.Owner != "" && !s.view.live[c.Owner] {
					s.heard[c.Addr] = now
				}
				continue
			}
			// A claim that lost to ours. An older one than that which ours was made against is but late news.
			ours := s.replica.get(c.Addr)
			if ours.Owner == s.config.Node && c.Owner != "" && c.Owner != ours.Owner && c.Epoch+1 >= ours.Epoch {
				s.rivals[c.Addr] = rivalClaim{name: c.Owner, until: now.Add(rivalry)}
			}
		}
	}
}

// meetRivals ends conflicts that this speaker has won: the loser is told again, and so are the neighbours, some of whom may have listened
// to it last.
func (s *Speaker) meetRivals(now time.Time) {
	for a, r := range s.rivals {
		h := s.held[a]
		switch {
		case h == nil || s.replica.get(a) != h.claim:
			delete(s.rivals, a)
		case s.view.live[r.name]:
			delete(s.rivals, a)
			if now.Sub(h.announced) < defence {
				continue // the burst under way, and its claim, do it
			}
			s.outbox = append(s.outbox, h.claim)
			if h.answers() {
				s.announceAnew(h, now)
				s.metrics.rivalries.Inc()
				s.tell("announcing again", a, announce.Holder, r.name)
			}
		case !now.Before(r.until):
			delete(s.rivals, a)
		}
	}
}

// sweep does what no event calls for. Claims of speakers that are gone, on addresses that no Service has, are released, so that the
// address is probed before its next use; all speakers come to the same release, so nobody needs to be told.
func (s *Speaker) sweep(now time.Time) {
	if !s.active || now.Before(s.nextSweep) {
		return
	}
	s.nextSweep = now.Add(housekeeping)
	s.view.stale = true // the quorum changes with time, too
	s.bury(now)
	for c := range s.replica.claims.All() {
		if c.Owner != "" && !s.view.live[c.Owner] && len(s.byAddr[c.Addr]) == 0 {
			s.release(c)
		}
	}
	old := func(_ netip.Addr, t time.Time) bool { return now.Sub(t) > housekeeping }
	maps.DeleteFunc(s.lost, old)
	maps.DeleteFunc(s.heard, old)
}
