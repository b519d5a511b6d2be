// Package plan says what a change of the configuration would do to the Services before it is made: which keep their addresses, and who
// announces them then. It is pure, and decides with the functions that the controller and the speakers decide with.
package plan

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// Plan is what a change does.
type Plan struct {
	// Services are those that something changes for, sorted by namespace and name.
	Services []Service `json:"services"`
	// Unchanged is how many other Services have addresses.
	Unchanged int `json:"unchanged"`
	// Faults are those that the configuration has not had before.
	Faults []Fault `json:"faults,omitempty"`
	// NotKnown is what could not be read, so that the plan may be wrong about it.
	NotKnown []cluster.Gap `json:"notKnown,omitempty"`
}

// Outcome is what becomes of a Service's addresses.
type Outcome string

// The outcomes.
const (
	Keeps Outcome = "keeps" // all that it has
	Gets  Outcome = "gets"  // one more
	Moves Outcome = "moves" // to another address
	Loses Outcome = "loses" // one, and has no other of the family in its place
)

// Service is what becomes of a Service.
type Service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Outcome   Outcome      `json:"outcome"`
	From      []netip.Addr `json:"from,omitempty"`
	To        []netip.Addr `json:"to,omitempty"`
	// Reason and Message are those of its condition AddressAssigned, with what it loses; empty for one that keeps its addresses.
	Reason  ipam.Reason `json:"reason,omitempty"`
	Message string      `json:"message,omitempty"`
	// Gained and Lost are who announces its addresses then and does not now, and the other way round.
	Gained []Announcer `json:"gained,omitempty"`
	Lost   []Announcer `json:"lost,omitempty"`
	// Silent are addresses that nobody announces then, though somebody announces those that the Service has now.
	Silent []netip.Addr `json:"silent,omitempty"`
}

// Harmed tells whether clients of the Service would notice.
func (s *Service) Harmed() bool {
	return s.Outcome == Moves || s.Outcome == Loses || len(s.Silent) > 0
}

// Fault is something wrong with an object, as in its conditions.
type Fault struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Field   string `json:"field"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Warning: the object is in use all the same.
	Warning bool `json:"warning,omitempty"`
}

// Harms tells whether a Service loses or moves an address, or its last announcer.
func (p *Plan) Harms() bool {
	return slices.ContainsFunc(p.Services, func(s Service) bool { return s.Harmed() })
}

// New plans the change from one configuration to another. The Services, and all else that is no configuration, are those of before.
func New(before, after *cluster.Snapshot) *Plan {
	p := &Plan{Services: []Service{}, NotKnown: before.Gaps}
	cfg, faults := config.Parse(before.Resources)
	next, nextFaults := config.Parse(after.Resources)
	for _, f := range nextFaults {
		if !slices.Contains(faults, f) {
			p.Faults = append(p.Faults, Fault{f.Kind, f.Name, f.Field, string(f.Reason), f.Message, f.Warning})
		}
	}
	now, then := newSite(before, cfg), newSite(before, next)
	decisions := decide(before, cfg, next)
	for i := range before.Services {
		svc := &before.Services[i]
		name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
		if !assign.Serves(svc, before.Class()) {
			continue
		}
		s := Service{Namespace: svc.Namespace, Name: svc.Name, From: assign.Addresses(svc), To: assign.Addresses(svc)}
		d, decided := decisions[name]
		if decided {
			s.To = d.addrs
		}
		s.Outcome = outcome(s.From, s.To)
		if s.Outcome != Keeps {
			s.Reason, s.Message = d.reason, d.message
		}
		s.compareAnnouncers(now.announcers(svc, s.From), then.announcers(svc, s.To))
		switch {
		case s.Outcome != Keeps || len(s.Gained)+len(s.Lost) > 0:
			p.Services = append(p.Services, s)
		case len(s.To) > 0:
			p.Unchanged++
		}
	}
	slices.SortFunc(p.Services, func(a, b Service) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return p
}

func outcome(from, to []netip.Addr) Outcome {
	lost, moved := false, false
	for _, a := range from {
		if slices.Contains(to, a) {
			continue
		}
		if slices.ContainsFunc(to, func(b netip.Addr) bool { return ipam.FamilyOf(a) == ipam.FamilyOf(b) }) {
			moved = true
		} else {
			lost = true
		}
	}
	switch {
	case lost:
		return Loses
	case moved:
		return Moves
	case len(to) > len(from):
		return Gets
	}
	return Keeps
}
