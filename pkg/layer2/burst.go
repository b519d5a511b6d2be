package layer2

import (
	"context"
	"sync"
	"time"
)

// A burst repeats an announcement, because any one packet may be lost, and because a switch may still be learning where the new owner is.
var burstGaps = []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 600 * time.Millisecond, 1100 * time.Millisecond}

// Announcements are paced, so that the queues of switches and neighbours hold them when thousands of addresses move at once.
const (
	paceBatch = 10
	pacePause = time.Millisecond
)

// turn is one announcement to be made.
type turn struct {
	due    time.Time
	vip    *vip
	serial uint64
	// onlyIndex restricts the announcement to one interface; 0 means all.
	onlyIndex int
}

// bursts makes gratuitous announcements at their times, all of them on one goroutine. There is one queue per round of a burst, and the
// periodic announcements have the last one: all turns of a queue waited equally long, so a queue is in order of time by itself, and
// first announcements go out before anybody's repetition.
type bursts struct {
	// announce makes the announcement, and reports false when it is outdated and not to be repeated.
	announce func(turn) bool
	// interval is the time between periodic announcements of an address; 0 means none.
	interval time.Duration

	mu     sync.Mutex
	queues [][]turn
	wake   chan struct{}
}

func newBursts(interval time.Duration, announce func(turn) bool) *bursts {
	return &bursts{announce: announce, interval: interval, queues: make([][]turn, len(burstGaps)+2), wake: make(chan struct{}, 1)}
}

// start begins a burst.
func (b *bursts) start(turns ...turn) {
	b.push(0, time.Now(), turns)
}

// repeat begins the periodic announcements of an address.
func (b *bursts) repeat(turns ...turn) {
	if b.interval > 0 {
		b.push(len(b.queues)-1, time.Now().Add(b.interval), turns)
	}
}

func (b *bursts) push(queue int, due time.Time, turns []turn) {
	if len(turns) == 0 {
		return
	}
	b.mu.Lock()
	for _, t := range turns {
		t.due = due
		b.queues[queue] = append(b.queues[queue], t)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run makes announcements until ctx is done.
func (b *bursts) run(ctx context.Context) {
	for made := 0; ctx.Err() == nil; {
		t, queue, wait := b.next(time.Now())
		if queue < 0 {
			b.sleep(ctx, wait)
			continue
		}
		if !b.announce(t) {
			continue
		}
		if queue < len(burstGaps) {
			b.push(queue+1, time.Now().Add(burstGaps[queue]), []turn{t})
		} else if queue == len(b.queues)-1 {
			b.push(queue, time.Now().Add(b.interval), []turn{t})
		}
		if made++; made%paceBatch == 0 {
			time.Sleep(pacePause)
		}
	}
}

// next takes the turn that is due, or returns a negative queue and how long nothing will be; a negative time means until woken.
func (b *bursts) next(now time.Time) (t turn, queue int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait = -1
	for i, q := range b.queues {
		if len(q) == 0 {
			continue
		}
		if until := q[0].due.Sub(now); until <= 0 {
			b.queues[i] = q[1:]
			return q[0], i, 0
		} else if wait < 0 || until < wait {
			wait = until
		}
	}
	return turn{}, -1, wait
}

func (b *bursts) sleep(ctx context.Context, wait time.Duration) {
	var after <-chan time.Time
	if wait >= 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-ctx.Done():
	case <-b.wake:
	case <-after:
	}
}
