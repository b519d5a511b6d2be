package speaker

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// Layer2Reporter shows users what a node answers for. Its method does not wait for the API.
type Layer2Reporter interface {
	// SetLayer2 tells what this node answers for, of a Service; nil for nothing.
	SetLayer2(service string, announced *v1beta1.Layer2Announcement)
	// Bury deletes what was shown of nodes that are gone, and Keep what was shown of all nodes but these.
	Bury(nodes []string)
	Keep(nodes []string)
	// Recheck makes up for what others may have deleted that took this node for dead.
	Recheck()
}

// shown are the statuses that are written until ctx is done.
type shown struct {
	*statuses
	ctx context.Context
}

// Bury implements Layer2Reporter.
func (s shown) Bury(nodes []string) { go s.buryDead(s.ctx, nodes) }

// Keep implements Layer2Reporter. It takes the place of the last one, should that not be done yet.
func (s shown) Keep(nodes []string) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keepNoMore != nil {
		s.keepNoMore()
	}
	s.keepNoMore = cancel
	go s.buryUnknown(ctx, nodes)
}

// Recheck implements Layer2Reporter. It leaves others the time to finish.
func (s shown) Recheck() { s.reviewIn(statusSettle) }

// settle lets the statuses delete what an earlier run has shown, once all that is announced has been shown.
func (s shown) settle(announcing func() bool) {
	for !announcing() {
		select {
		case <-time.After(time.Second):
		case <-s.ctx.Done():
			return
		}
	}
	select {
	case <-time.After(handOver): // addresses may come back to this node that another has had meanwhile
		s.ready()
	case <-s.ctx.Done():
	}
}

// show tells what this node answers for of each Service that has been looked at or whose address was withdrawn.
func (s *Speaker) show() {
	if s.config.Shown == nil || len(s.toShow) == 0 {
		return
	}
	for name := range s.shown {
		if svc := s.services[name]; svc == nil || len(svc.addrs) == 0 {
			s.toShow[name] = nil
		}
	}
	delete(s.toShow, "")
	for name, svc := range s.toShow {
		announced := s.answered(svc)
		if announced == nil {
			delete(s.shown, name)
		} else {
			s.shown[name] = struct{}{}
		}
		s.config.Shown.SetLayer2(name, announced)
	}
	clear(s.toShow)
}

// bury has one speaker, the first by name, delete what dead nodes have left.
func (s *Speaker) bury(now time.Time) {
	if s.config.Shown == nil {
		return
	}
	if !s.view.first {
		return
	}
	// Nodes may have gone while nobody looked.
	if known := slices.Sorted(maps.Keys(s.nodes)); !slices.Equal(known, s.kept) {
		s.kept = known
		s.config.Shown.Keep(known)
	}
	var dead []string
	for name, t := range s.lostAt {
		if now.Sub(t) >= burial && !s.buried[name] {
			dead = append(dead, name)
			s.buried[name] = true
		}
	}
	for name := range s.buried {
		if s.view.live[name] {
			delete(s.buried, name)
		}
	}
	if len(dead) > 0 {
		slices.Sort(dead)
		s.config.Shown.Bury(dead)
	}
}

// answered returns what this node answers for of a Service; nil for nothing.
func (s *Speaker) answered(svc *service) *v1beta1.Layer2Announcement {
	if svc == nil {
		return nil
	}
	var l v1beta1.Layer2Announcement
	everywhere := false
	for _, a := range svc.addrs {
		if h := s.held[a]; h != nil && h.answers() {
			l.Addresses = append(l.Addresses, a.String())
			l.Interfaces = append(l.Interfaces, h.interfaces...)
			everywhere = everywhere || h.interfaces == nil
		}
	}
	if len(l.Addresses) == 0 {
		return nil
	}
	slices.Sort(l.Interfaces)
	if l.Interfaces = slices.Compact(l.Interfaces); everywhere {
		l.Interfaces = nil
	}
	return &l
}
