package bfd

import (
	"container/heap"
	"time"
)

// schedule orders sessions by when they have to be looked at; it is a container/heap.
type schedule []*session

func (q schedule) Len() int           { return len(q) }
func (q schedule) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q schedule) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *schedule) Push(x any) {
	s := x.(*session)
	s.index = len(*q)
	*q = append(*q, s)
}

func (q *schedule) Pop() any {
	s := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = nil
	*q = (*q)[:len(*q)-1]
	s.index = -1
	return s
}

// put has s looked at no later than at; the zero time is never. A session that may wait longer than it was said to stays where it is until
// its turn comes: each packet received moves the end of the detection time, and the next packet to send is mostly due before.
func (q *schedule) put(s *session, at time.Time) {
	switch {
	case at.IsZero():
	case s.index < 0:
		s.at = at
		heap.Push(q, s)
	case at.Before(s.at):
		s.at = at
		heap.Fix(q, s.index)
	}
}

// take removes and returns a session whose time has come, nil if there is none.
func (q *schedule) take(now time.Time) *session {
	if len(*q) == 0 || (*q)[0].at.After(now) {
		return nil
	}
	return heap.Pop(q).(*session)
}

// remove takes s out.
func (q *schedule) remove(s *session) {
	if s.index >= 0 {
		heap.Remove(q, s.index)
	}
}
