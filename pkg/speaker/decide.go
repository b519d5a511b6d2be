package speaker

import (
	"net/netip"
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// unit is one address of one Service, with the nodes that may announce it.
type unit struct {
	addr       netip.Addr
	service    *service
	pool       string
	candidates []announce.Candidate
}

// ballot is a group with its candidates.
type ballot struct {
	group
	units      []unit
	candidates []announce.Candidate
}

// may tells whether the node may announce the address, and on which interfaces; nil means all.
func (b *ballot) may(node string, a netip.Addr) (interfaces []string, ok bool) {
	all := false
	for _, u := range b.units {
		if u.addr != a {
			continue
		}
		for _, c := range u.candidates {
			if c.Node == node {
				ok = true
				all = all || c.Interfaces == nil
				interfaces = append(interfaces, c.Interfaces...)
			}
		}
	}
	if all {
		return nil, ok
	}
	slices.Sort(interfaces)
	return slices.Compact(interfaces), ok
}

func (b *ballot) has(node string) bool {
	return slices.ContainsFunc(b.candidates, func(c announce.Candidate) bool { return c.Node == node })
}

// decide finds out who announces the group, and does this node's part in it.
func (s *Speaker) decide(g group, now time.Time) {
	b := s.ballot(g)
	s.lookForAnnouncers(&b, now)
	s.bar(&b, now)
	key := g.addrs[0]
	since := s.awaiting[key].since
	for _, a := range g.addrs {
		s.awaitNoMore(a)
	}
	if len(b.candidates) == 0 {
		for _, a := range g.addrs {
			s.withdraw(a, announce.NoEligibleNode)
		}
		return
	}
	e := announce.Election{Key: key, Candidates: b.candidates, Holder: s.holder(&b), Load: s.load}
	elected, reason := e.Decide()
	if elected != s.config.Node {
		if passed := s.await(&b, e.Holder, elected, since, now); passed >= 0 {
			if next, why := e.After(passed).Decide(); next == s.config.Node {
				elected, reason = next, why
			}
		}
	}
	if elected == s.config.Node {
		s.awaitNoMore(key)
		s.take(&b, reason, now)
	} else {
		s.yield(&b, now)
	}
}

// ballot finds the candidates for a group, and what about other nodes could change them.
func (s *Speaker) ballot(g group) ballot {
	b := ballot{group: g}
	var parts [][]announce.Candidate
	choosy, preferring := false, false
	for _, svc := range g.services {
		var candidates []announce.Candidate
		for i, a := range svc.addrs {
			if i == 0 || svc.pools[i] != svc.pools[i-1] {
				ads, _ := announce.Advertisements(svc.spec, svc.pools[i], s.inventory.config.L2Advertisements)
				candidates, _ = announce.Eligible(svc.spec, ads, s.view.nodes)
				if len(candidates) > 0 {
					parts = append(parts, candidates)
				}
				choosy = choosy || slices.ContainsFunc(ads, isChoosy)
				preferring = preferring || slices.ContainsFunc(ads, isPreferring)
			}
			b.units = append(b.units, unit{a, svc, svc.pools[i], candidates})
		}
	}
	b.candidates = announce.Together(parts...)
	complete := len(b.candidates) > 0 && !slices.ContainsFunc(parts, func(part []announce.Candidate) bool {
		return !slices.ContainsFunc(part, func(c announce.Candidate) bool { return c.Node == b.candidates[0].Node })
	})
	for _, svc := range g.services {
		svc.choosy, svc.restless = choosy, preferring || !complete
	}
	return b
}

func isPreferring(ad *config.L2Advertisement) bool { return len(ad.Preferred) > 0 }

func isChoosy(ad *config.L2Advertisement) bool {
	return len(ad.Nodes) > 0 || len(ad.Preferred) > 0 || len(ad.Interfaces) > 0
}

// holder returns the candidate that has the group now, or "".
func (s *Speaker) holder(b *ballot) string {
	for _, a := range b.addrs {
		c := s.replica.get(a)
		if h := s.held[a]; h != nil && c.Owner != s.config.Node && announce.Regained(h.claim, c) {
			c.Owner = s.config.Node
		}
		if c.Owner != "" && b.has(c.Owner) {
			return c.Owner
		}
	}
	return ""
}

func (s *Speaker) load(node string) int { return s.replica.claims.Load(node) + s.expected[node] }

// take has this node announce the group.
func (s *Speaker) take(b *ballot, reason announce.Reason, now time.Time) {
	for _, a := range b.addrs {
		interfaces, ok := b.may(s.config.Node, a)
		if !ok {
			s.withdraw(a, announce.NoEligibleNode)
			continue
		}
		h, c := s.held[a], s.replica.get(a)
		if h == nil && !s.carries(a) {
			continue // once its rules are there
		}
		if c.Owner != s.config.Node {
			if s.view.live[c.Owner] && !s.mayRetake(a, h, c, now) {
				continue
			}
			if until, wait := s.mayReturn(a, c.Owner, now); wait {
				s.at(a, until)
				continue
			}
			h = s.claimFrom(a, h, c, reason, now)
		} else if h == nil {
			h = &hold{claim: c}
			s.held[a] = h
			s.unsynced = true
			s.tell("resuming", a, reason, "")
		} else if s.view.quorum && !c.Quorum {
			s.claim(h, c, c.Probing)
		}
		if !slices.Equal(h.interfaces, interfaces) || (h.interfaces == nil) != (interfaces == nil) {
			h.interfaces, s.unsynced = interfaces, true
		}
		h.unfit = time.Time{}
		switch {
		case !h.claim.Probing || h.probing:
		case now.Before(h.retry):
			s.at(a, h.retry) // again: the look that was due for it may have been taken for something else, before
		default:
			h.probing = true
			s.toProbe = append(s.toProbe, probeOrder{addr: a, interfaces: interfaces, hold: h})
		}
	}
	s.complain(b)
}

// mayRetake tells whether the address may be claimed against another live speaker's claim. One that this speaker has just lost is left
// to the other for a while.
func (s *Speaker) mayRetake(a netip.Addr, h *hold, c announce.Claim, now time.Time) bool {
	if h != nil && announce.Regained(h.claim, c) {
		return true
	}
	if h != nil && !c.Probing {
		s.lost[a] = now
		s.withdraw(a, announce.Superseded)
	}
	until := s.lost[a].Add(retake)
	if now.Before(until) {
		s.at(a, until)
		return false
	}
	return true
}

// claimFrom claims the address against another's claim, a released one, or none. A fresh address, and one whose owner had not yet
// probed it, is probed before it is answered.
func (s *Speaker) claimFrom(a netip.Addr, h *hold, against announce.Claim, reason announce.Reason, now time.Time) *hold {
	fresh := against.Owner == "" || against.Probing
	if h == nil {
		h = &hold{}
		s.held[a] = h
	} else if h.answers() {
		fresh = false
	}
	h.taken = now
	s.claim(h, against, fresh)
	s.metrics.taken.WithLabelValues(string(reason)).Inc()
	s.takeovers[a]++
	if !fresh {
		s.announceAnew(h, now)
		s.tell("taking over", a, reason, against.Owner)
	}
	return h
}

func (s *Speaker) claim(h *hold, against announce.Claim, probing bool) {
	h.claim = announce.Claim{
		Addr: against.Addr, Owner: s.config.Node, Epoch: against.Epoch + 1, Quorum: s.view.quorum, Probing: probing,
	}
	s.replica.merge(h.claim)
	s.outbox = append(s.outbox, h.claim)
}

// announceAnew has the neighbours told that the address is here.
func (s *Speaker) announceAnew(h *hold, now time.Time) {
	s.bursts++
	h.burst, h.announced, s.unsynced = s.bursts, now, true
}

// yield has this node leave the group to the elected one: at once what another live speaker answers for, the rest when it does,
// or after a while.
func (s *Speaker) yield(b *ballot, now time.Time) {
	for _, a := range b.addrs {
		h := s.held[a]
		if h == nil {
			continue
		}
		_, fit := b.may(s.config.Node, a)
		switch c := s.replica.get(a); {
		case c.Owner != s.config.Node && s.view.live[c.Owner] && !c.Probing:
			// The claim that lost tells the winner that somebody else has answered until now.
			s.outbox = append(s.outbox, h.claim)
			s.withdraw(a, announce.Superseded)
		case !h.answers():
			s.withdraw(a, announce.Superseded)
		case fit && b.has(s.config.Node):
			h.unfit = time.Time{}
		case h.unfit.IsZero():
			h.unfit = now
			s.at(a, now.Add(handOver))
		case now.Sub(h.unfit) >= handOver:
			s.withdraw(a, announce.NoSuccessor)
		default:
			s.at(a, h.unfit.Add(handOver))
		}
	}
}

// awaited is a group that another speaker is expected to claim.
type awaited struct {
	since   time.Time
	elected string
	missing int // addresses
}

// await keeps an eye on a group that another speaker is to claim and that nobody who may holds. When that takes too long, it returns
// how many candidates are to be passed over; otherwise -1.
func (s *Speaker) await(b *ballot, holder, elected string, since, now time.Time) int {
	missing := 0
	for _, a := range b.addrs {
		if _, ok := b.may(elected, a); ok && s.replica.get(a).Owner != elected {
			missing++
		}
	}
	if missing == 0 || holder != "" && holder != elected {
		return -1
	}
	if since.IsZero() {
		since = now
	}
	key, waited := b.addrs[0], now.Sub(since)
	s.awaiting[key] = awaited{since: since, elected: elected, missing: missing}
	s.expected[elected] += missing
	if waited < patience {
		// The others may see it differently: they hear of claims and Services a little later or earlier. Once they have, look again.
		s.at(key, since.Add(min(max(2*waited, firstLook), patience)))
		return -1
	}
	passed := int((waited - patience) / nextInLine)
	s.at(key, since.Add(patience+time.Duration(passed+1)*nextInLine))
	return passed
}

func (s *Speaker) awaitNoMore(key netip.Addr) {
	if w, ok := s.awaiting[key]; ok {
		delete(s.awaiting, key)
		s.expected[w.elected] -= w.missing
	}
}

func (s *Speaker) withdraw(a netip.Addr, reason announce.Reason) {
	h := s.held[a]
	if h == nil {
		return
	}
	delete(s.held, a)
	for _, svc := range s.byAddr[a] {
		s.toShow[svc.Name] = svc
	}
	if h.answers() {
		s.unsynced = true
		s.metrics.withdrawn.Inc()
		s.tell("withdrawing", a, reason, s.replica.get(a).Owner)
	}
}

// dropOrphans withdraws and releases the addresses that no Service has any more.
func (s *Speaker) dropOrphans() {
	for a := range s.orphans {
		s.toShow[""] = nil // a Service has gone
		s.withdraw(a, announce.NoService)
		if c := s.replica.get(a); c.Owner == s.config.Node {
			s.release(c)
			s.outbox = append(s.outbox, s.replica.get(a))
		}
		s.awaitNoMore(a)
		delete(s.rivals, a)
		delete(s.due, a)
		delete(s.gated, a)
		delete(s.unowned, a)
		delete(s.takeovers, a)
	}
	clear(s.orphans)
}

func (s *Speaker) release(c announce.Claim) {
	s.replica.merge(announce.Claim{Addr: c.Addr, Epoch: c.Epoch + 1, Quorum: s.view.quorum})
}
