package speaker

import (
	"log/slog"
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
	"github.com/steelyard-lb/steelyard/pkg/membership"
)

// apply makes the world agree with what was decided: first the network, then the others, so that a predecessor that withdraws on our
// claim does it after neighbours have heard of us.
func (s *Speaker) apply(announcements []layer2.Announcement) {
	if s.unsynced {
		s.unsynced = false
		s.noteFaults(s.config.Layer2.Sync(announcements))
	}
	for _, m := range announce.Messages(s.outbox, membership.MaxBroadcast) {
		s.members.Broadcast(m)
	}
	s.outbox = nil
	for _, order := range s.toProbe {
		s.probes.start(order)
	}
	s.toProbe = nil
	s.logNews()
}

// announcements returns what layer 2 is to answer for, when that has changed.
func (s *Speaker) announcements() []layer2.Announcement {
	if !s.unsynced {
		return nil
	}
	var all []layer2.Announcement
	for a, h := range s.held {
		if h.answers() {
			all = append(all, layer2.Announcement{Addr: a, Interfaces: h.interfaces, Burst: h.burst})
		}
	}
	slices.SortFunc(all, func(x, y layer2.Announcement) int { return x.Addr.Compare(y.Addr) })
	return all
}

// noteFaults logs what keeps layer 2 from answering, once for all the addresses that it concerns.
func (s *Speaker) noteFaults(statuses []layer2.Status) {
	faults := map[string][]netip.Addr{}
	for _, st := range statuses {
		if st.Err != nil {
			faults[st.Err.Error()] = append(faults[st.Err.Error()], st.Addr)
		}
	}
	for fault, addrs := range faults {
		if _, known := s.faults[fault]; !known {
			s.log.Warn("addresses are not answered on every interface that they should be", "addresses", len(addrs), "first", addrs[0], "error", fault)
		}
	}
	s.faults = faults
}

// news is something to be logged once it is done.
type news struct {
	what   string
	addr   netip.Addr
	reason announce.Reason
	other  string
}

func (s *Speaker) tell(what string, a netip.Addr, reason announce.Reason, other string) {
	s.news = append(s.news, news{what, a, reason, other})
}

// logNews logs each address while they are few; a node's death may move thousands.
func (s *Speaker) logNews() {
	const few = 20
	level := slog.LevelInfo
	if len(s.news) > few {
		level = slog.LevelDebug
		counts := map[string]int{}
		for _, n := range s.news {
			counts[n.what]++
		}
		s.log.Info("many addresses change at once", "taking over", counts["taking over"], "announcing", counts["announcing"],
			"resuming", counts["resuming"], "withdrawing", counts["withdrawing"])
	}
	for _, n := range s.news {
		if !s.log.Enabled(s.probes.ctx, level) {
			break
		}
		s.log.Log(s.probes.ctx, level, n.what, "address", n.addr, "reason", n.reason, "other", n.other)
	}
	s.news = nil
}
