package speaker

import (
	"net/netip"
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

// Dataplane is what the speaker needs of this node's rules for Services; engine.Engine is one.
type Dataplane interface {
	// Carries tells whether the kernel has the rules for everything that Services do at a load-balancer address.
	Carries(netip.Addr) bool
	// Settled tells whether the kernel has the rules for all that is known, or for what of it there can be any.
	Settled() bool
	// Changed says that some answer of Carries may be another now. Each caller has a channel of its own.
	Changed() <-chan struct{}
	// SetDown tells which nodes have lost power.
	SetDown(nodes []string)
}

func (s *Speaker) carries(a netip.Addr) bool {
	return s.config.Dataplane == nil || s.config.Dataplane.Carries(a)
}

// bar takes this node out of the candidates when it can't carry what it would announce: the address would lead clients into a hole. What it
// holds already it keeps for a while, because rules that somebody removed are soon put back.
func (s *Speaker) bar(b *ballot, now time.Time) {
	if !b.has(s.config.Node) {
		return
	}
	holds, closed, lost := false, false, false
	for _, a := range b.addrs {
		h := s.held[a]
		holds = holds || h != nil
		if s.carries(a) {
			delete(s.gated, a)
			if h != nil {
				h.uncarried = time.Time{}
			}
			continue
		}
		s.gated[a] = struct{}{}
		closed = true
		switch {
		case h == nil:
		case h.uncarried.IsZero():
			h.uncarried = now
			s.at(a, now.Add(repair))
		case now.Sub(h.uncarried) >= repair:
			lost = true
		default:
			s.at(a, h.uncarried.Add(repair))
		}
	}
	if !lost && (holds || !closed) {
		return
	}
	b.drop(s.config.Node)
	for _, a := range b.addrs {
		if s.held[a] == nil {
			continue
		}
		s.withdraw(a, announce.NotCarried)
		if c := s.replica.get(a); c.Owner == s.config.Node {
			s.release(c)
			s.outbox = append(s.outbox, s.replica.get(a))
		}
	}
}

// drop takes a node out of the candidates.
func (b *ballot) drop(node string) {
	is := func(c announce.Candidate) bool { return c.Node == node }
	for i := range b.units {
		b.units[i].candidates = slices.DeleteFunc(slices.Clone(b.units[i].candidates), is)
	}
	b.candidates = slices.DeleteFunc(slices.Clone(b.candidates), is)
}

// gateMoved looks again at the addresses that wait for rules, and at those held that have lost theirs.
func (s *Speaker) gateMoved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.gated {
		delete(s.gated, a)
		s.touchAddr(a)
	}
	for a := range s.held {
		if !s.carries(a) {
			s.touchAddr(a)
		}
	}
}
