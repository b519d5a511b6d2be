// Package traffic is a client that never rests: it opens a connection every few milliseconds and remembers when it got
// an answer, so that a gap in service can be seen and measured.
package traffic

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// patience is how long one connection may take from its first packet to the answer. It is shorter than the second after
// which TCP repeats a lost SYN, so a connection begun in a gap does not count as served.
const patience = 500 * time.Millisecond

// Stream opens new connections at a steady pace.
type Stream struct {
	stop     context.CancelFunc
	finished chan struct{}

	mu     sync.Mutex
	tries  []try
	faults map[string]int
}

type try struct {
	began  time.Time
	served bool
}

// Start opens a TCP connection to address from h every interval until Stop.
func Start(h host.Host, address string, interval time.Duration) *Stream {
	return StartPatient(h, address, interval, patience)
}

// StartPatient is Start with another time for each connection to be served in. With more than a second it tells connections that
// are refused or reset from those that a busy machine was slow to serve, but not from those of a short gap.
func StartPatient(h host.Host, address string, interval, patience time.Duration) *Stream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Stream{stop: cancel, finished: make(chan struct{}), faults: map[string]int{}}
	go func() {
		defer close(s.finished)
		var all sync.WaitGroup
		defer all.Wait()
		pace := time.NewTicker(interval)
		defer pace.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
				all.Go(func() {
					began := time.Now()
					_, err := Ask(context.Background(), h, "tcp", address, patience)
					s.record(try{began: began, served: err == nil}, err)
				})
			}
		}
	}()
	return s
}

func (s *Stream) record(t try, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries = append(s.tries, t)
	if err != nil {
		s.faults[err.Error()]++
	}
}

// Served reports how many connections got an answer since then.
func (s *Stream) Served(since time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, t := range s.tries {
		if t.served && t.began.After(since) {
			n++
		}
	}
	return n
}

// Flows returns a condition to wait for: that fifty connections begun after since got an answer.
func (s *Stream) Flows(since time.Time) func(context.Context) error {
	return func(context.Context) error {
		if n := s.Served(since); n < 50 {
			return fmt.Errorf("%d connections served", n)
		}
		return nil
	}
}

// Result is what a stream saw.
type Result struct {
	Tried, Served int
	// Gap is the longest time between the starts of two served connections between which at least one was not served,
	// and Began when it started. The end of the stream counts as served.
	Gap time.Duration
	// Lost is the greatest number of connections lost in a row. Times the interval it is the shortest that the gap can have
	// been; on a starved machine, where connections are not begun in time, Gap is longer.
	Lost   int
	Began  time.Time
	Faults map[string]int // errors with their counts
}

func (r Result) String() string {
	return fmt.Sprintf("%d of %d connections served, longest gap %d ms, %d lost in a row", r.Served, r.Tried, r.Gap.Milliseconds(), r.Lost)
}

// Stop ends the stream, waits for its open connections and reports.
func (s *Stream) Stop() Result {
	s.stop()
	end := time.Now()
	<-s.finished
	s.mu.Lock()
	defer s.mu.Unlock()
	r := result(s.tries, end)
	r.Faults = s.faults
	return r
}

func result(tries []try, end time.Time) Result {
	r := Result{Tried: len(tries)}
	if len(tries) == 0 {
		return r
	}
	slices.SortFunc(tries, func(a, b try) int { return a.began.Compare(b.began) })
	last, lost := tries[0].began, 0
	served := func(at time.Time) {
		if d := at.Sub(last); lost > 0 && d > r.Gap {
			r.Gap, r.Began = d, last
		}
		r.Lost = max(r.Lost, lost)
		last, lost = at, 0
	}
	for _, t := range tries {
		if !t.served {
			lost++
			continue
		}
		r.Served++
		served(t.began)
	}
	served(end)
	return r
}

// Answer is what the echo server says: the pod that served, its node, and the client's address as the pod saw it.
type Answer struct{ Pod, Node, Client string }

// Ask sends one line over a new connection ("tcp" or "udp") and returns the echo server's answer.
func Ask(ctx context.Context, h host.Host, network, address string, patience time.Duration) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := h.Dial(ctx, network, address)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return Answer{}, err
	}
	if _, err := conn.Write([]byte("who\n")); err != nil {
		return Answer{}, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return Answer{}, err
	}
	return Parse(line)
}

// Parse reads the echo server's answer.
func Parse(line string) (Answer, error) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return Answer{}, fmt.Errorf("%q is not what the echo server answers", line)
	}
	return Answer{Pod: f[0], Node: f[1], Client: f[2]}, nil
}
