package speaker

import (
	"net/netip"
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

// unowned is an address that nobody may announce, by any protocol.
type unowned struct {
	reason announce.Reason
	since  time.Time
}

// lookForAnnouncers finds out which of a group's addresses nobody may announce, and tells users once that has lasted. All speakers look, and
// the first by name of the majority tells.
func (s *Speaker) lookForAnnouncers(b *ballot, now time.Time) {
	field := s.field(s.view.nodes)
	for _, svc := range b.services {
		svc.witnesses = nil
	}
	why := map[netip.Addr]announce.Reason{} // of the first Service that has the address; "" for an address that somebody may announce
	for _, u := range b.units {
		reason := announce.Reason("")
		if len(u.candidates) == 0 {
			var node string
			if node, reason = field.Announcer(u.service.spec, u.addr, u.pool); node != "" && !slices.Contains(u.service.witnesses, node) {
				u.service.witnesses = append(u.service.witnesses, node)
			}
		}
		if other, known := why[u.addr]; !known || other != "" && reason == "" {
			why[u.addr] = reason
		}
	}
	for a, reason := range why {
		is, known := s.unowned[a]
		switch {
		case reason == "":
			delete(s.unowned, a)
			continue
		case !known:
			is.since = now
		}
		is.reason = reason
		s.unowned[a] = is
		if until := is.since.Add(grief); now.Before(until) {
			s.at(a, until)
		}
	}
	if !s.view.tells() {
		return
	}
	for _, svc := range b.services {
		s.lament(svc, len(b.candidates) > 0, now)
	}
}

// field returns what decides who may announce, of these nodes.
func (s *Speaker) field(nodes []announce.Node) *announce.Field {
	c := s.inventory.config
	return &announce.Field{Nodes: nodes, L2Advertisements: c.L2Advertisements, BGPAdvertisements: c.BGPAdvertisements, BGPPeers: c.BGPPeers}
}

// lament tells users that nobody may announce a Service, or that it is over. A Service with an address that somebody may announce is left
// alone, and so is the complaint of the node that owns an address, if there can be one.
func (s *Speaker) lament(svc *service, owned bool, now time.Time) {
	if len(svc.addrs) == 0 {
		return
	}
	for _, a := range svc.addrs {
		is, known := s.unowned[a]
		switch {
		case !known:
			svc.complained = time.Time{}
			if svc.Complaint != "" && (svc.ComplaintReason != announce.AddressConflict || !owned) {
				s.config.Reporter.Withdraw(svc.Name)
			}
			return
		case now.Before(is.since.Add(grief)):
			return
		}
	}
	reason, message := s.unowned[svc.addrs[0]].reason, s.field(s.view.all).Plea(svc.Name, svc.spec, svc.addrs, svc.pools)
	if svc.Complaint == message && svc.ComplaintReason == reason {
		return
	}
	if until := svc.complained.Add(amends); now.Before(until) {
		s.at(svc.addrs[0], until)
		return
	}
	svc.complained = now
	s.config.Reporter.Complain(svc.Name, reason, message, svc.Complaint != "" && svc.ComplaintReason == reason)
}

// dropComplaints takes back the complaints about Services that are not ours to announce any more, or that have lost their addresses, whoever
// made them.
func (s *Speaker) dropComplaints() {
	for name := range s.outlived {
		svc := s.services[name]
		if about := svc != nil && (len(svc.addrs) > 0 || svc.Complaint == ""); !about && s.view.first {
			s.config.Reporter.Withdraw(name)
		}
	}
	clear(s.outlived)
}
