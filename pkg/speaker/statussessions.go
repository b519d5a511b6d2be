package speaker

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// lookAtSessions finds out which BGPSessions are to be written, and which Events.
func (s *statuses) lookAtSessions(now time.Time) {
	gone := map[string]bool{}
	for peer := range s.published {
		gone[peer] = true
	}
	for _, status := range s.latest {
		status.Node = s.node
		delete(gone, status.Peer)
		s.lookAtSession(status, now)
	}
	for peer := range gone {
		delete(s.published, peer)
		delete(s.up, peer)
		delete(s.busy, peer)
		if key := s.sessionKey(peer); s.items[key] != nil {
			s.items[key].session = ""
			s.enqueue(key, time.Time{})
		}
	}
}

func (s *statuses) lookAtSession(status v1beta1.BGPSessionStatus, now time.Time) {
	key := s.sessionKey(status.Peer)
	found := status
	old, known := s.published[status.Peer]
	status = settled(old, status, now)
	s.published[status.Peer] = status
	var at, eventAt time.Time
	switch {
	case !known:
	case sameState(old, status):
		at = s.written[key].Add(statusSettle)
	case !s.hurry(status.Peer, now):
		at = s.written[key].Add(statusSettle)
		eventAt = now.Add(statusSettle)
	}
	s.watchSession(found, now, eventAt)
	it := s.items[key]
	if it == nil {
		it = &statusItem{}
		s.items[key] = it
	}
	text := encode(status)
	if text == it.session {
		return
	}
	it.session = text
	s.enqueue(key, at)
}

// hurry tells whether a session's change may be told at once. One that changes all the time is told of every now and then.
func (s *statuses) hurry(peer string, now time.Time) bool {
	until := later(s.busy[peer], now)
	if until.Sub(now) > (statusBurst-1)*statusSettle {
		return false
	}
	s.busy[peer] = until.Add(statusSettle)
	return true
}

// settled returns the status with what need not be written anew taken from the old one. A session that does not come up goes from state to
// state all the time; the one that it was found in will do until there is something else to say.
func settled(old, status v1beta1.BGPSessionStatus, now time.Time) v1beta1.BGPSessionStatus {
	if stateClass(old.State) == stateClass(status.State) && status.State != string(bgp.Established) {
		status.Since = old.Since
		with := status
		with.State = old.State
		if encode(with) == encode(old) {
			return old
		}
	}
	if status.Since.IsZero() {
		status.Since = metav1.NewTime(now)
	}
	// Whole seconds are what the API server keeps.
	status.Since = metav1.NewTime(status.Since.UTC().Truncate(time.Second))
	return status
}

// sameState tells whether two statuses of one session differ in details only.
func sameState(a, b v1beta1.BGPSessionStatus) bool {
	return stateClass(a.State) == stateClass(b.State) && a.Since.Equal(&b.Since) && a.Reason == b.Reason && (a.BFD == nil) == (b.BFD == nil) &&
		(a.BFD == nil || a.BFD.State == b.BFD.State)
}

// stateClass returns the same for all states of a session that is on its way up.
func stateClass(state string) string {
	switch state {
	case "", refusedState, string(bgp.Established):
		return state
	}
	return string(bgp.Idle)
}

// watchSession makes Events of sessions that come up or go down. One that an earlier run left up is not down before there is an error: it
// takes a moment to come back. They are written at the given time or, if another is waiting for its time, then.
func (s *statuses) watchSession(status v1beta1.BGPSessionStatus, now, due time.Time) {
	is := s.up[status.Peer]
	established := status.State == string(bgp.Established)
	if waiting, ok := s.events[status.Peer]; ok && waiting.due.Before(due) {
		due = waiting.due
	}
	switch {
	case established && !is.up:
		s.events[status.Peer] = sessionEvent{announce.SessionUp, fmt.Sprintf("node %s has a session with %s, AS %d", s.node, status.Address, status.PeerASN), now, due}
	case !established && is.up && (is.seen || status.LastError != ""):
		message := fmt.Sprintf("node %s has lost its session", s.node)
		if status.Address != "" {
			message += " with " + status.Address
		}
		if status.Reason != "" {
			message += ": " + status.Reason
		}
		if status.LastError != "" {
			message += ": " + status.LastError
		}
		s.events[status.Peer] = sessionEvent{announce.SessionDown, message, now, due}
	case !established && is.up: // it may come back
		return
	}
	if is.up != established || established && !is.seen {
		s.up[status.Peer] = sessionUp{up: established, seen: true}
	}
}

// sessionUp is what is known of whether a session is up.
type sessionUp struct {
	up   bool
	seen bool // by this run, not only by an earlier one
}

// sessionEvent is an Event that a session's change calls for.
type sessionEvent struct {
	reason  announce.Reason
	message string
	at      time.Time
	due     time.Time // when it is written
}
