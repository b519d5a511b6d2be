package layer2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorder takes the place of the network.
type recorder struct {
	begin time.Time
	mu    sync.Mutex
	log   []string
	// outdated holds the addresses whose turns are no longer wanted.
	outdated map[netip.Addr]bool
}

func (r *recorder) announce(t turn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.outdated[t.vip.addr] {
		return false
	}
	r.log = append(r.log, fmt.Sprintf("%v %s", time.Since(r.begin), t.vip.addr))
	return true
}

func (r *recorder) withdraw(v *vip) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outdated[v.addr] = true
}

func TestBursts(t *testing.T) {
	a, b := &vip{addr: netip.MustParseAddr("192.0.2.1")}, &vip{addr: netip.MustParseAddr("192.0.2.2")}
	for _, c := range []struct {
		name     string
		interval time.Duration
		do       func(*bursts, *recorder)
		want     []string
	}{
		{"nothing", 0, func(*bursts, *recorder) {}, nil},
		{"one burst", 0, func(s *bursts, _ *recorder) {
			s.start(turn{vip: a})
		}, []string{"0s 192.0.2.1", "100ms 192.0.2.1", "500ms 192.0.2.1", "1.1s 192.0.2.1", "2.2s 192.0.2.1"}},
		{"withdrawn in the middle", 0, func(s *bursts, r *recorder) {
			s.start(turn{vip: a})
			time.Sleep(300 * time.Millisecond)
			r.withdraw(a)
		}, []string{"0s 192.0.2.1", "100ms 192.0.2.1"}},
		{"two bursts interleave", 0, func(s *bursts, _ *recorder) {
			s.start(turn{vip: a})
			time.Sleep(450 * time.Millisecond)
			s.start(turn{vip: b})
		}, []string{"0s 192.0.2.1", "100ms 192.0.2.1", "450ms 192.0.2.2", "500ms 192.0.2.1", "550ms 192.0.2.2", "950ms 192.0.2.2",
			"1.1s 192.0.2.1", "1.55s 192.0.2.2", "2.2s 192.0.2.1", "2.65s 192.0.2.2"}},
		{"periodic", 2 * time.Second, func(s *bursts, r *recorder) {
			s.repeat(turn{vip: a})
			time.Sleep(5 * time.Second)
			r.withdraw(a)
		}, []string{"2s 192.0.2.1", "4s 192.0.2.1"}},
		{"periodic switched off", 0, func(s *bursts, _ *recorder) {
			s.repeat(turn{vip: a})
			time.Sleep(time.Hour)
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{begin: time.Now(), outdated: map[netip.Addr]bool{}}
				s := newBursts(c.interval, r.announce)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); s.run(ctx) }()
				c.do(s, r)
				time.Sleep(time.Minute)
				cancel()
				<-ended
				if d := cmp.Diff(c.want, r.log); d != "" {
					t.Errorf("announcements (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestThousandsOfBurstsArePaced(t *testing.T) {
	const count = 5000
	synctest.Test(t, func(t *testing.T) {
		type sent struct {
			addr  netip.Addr
			after time.Duration
		}
		begin := time.Now()
		var log []sent
		s := newBursts(0, func(t turn) bool {
			log = append(log, sent{t.vip.addr, time.Since(begin)})
			return true
		})
		var turns []turn
		addr := netip.MustParseAddr("198.18.0.0")
		for range count {
			addr = addr.Next()
			turns = append(turns, turn{vip: &vip{addr: addr}})
		}
		s.start(turns...)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		<-ended

		if want := count * (len(burstGaps) + 1); len(log) != want {
			t.Errorf("%d announcements, want %d", len(log), want)
		}
		inSame := map[time.Duration]int{}
		seen := map[netip.Addr]bool{}
		for _, s := range log {
			inSame[s.after]++
			seen[s.addr] = true
		}
		for at, n := range inSame {
			if n > paceBatch {
				t.Errorf("%d announcements at once after %v", n, at)
			}
		}
		if len(seen) != count {
			t.Errorf("%d addresses announced, want %d", len(seen), count)
		}
		// Nobody's repetition goes before another's first announcement.
		firsts := log[:count]
		if !slices.IsSortedFunc(firsts, func(x, y sent) int { return x.addr.Compare(y.addr) }) {
			t.Error("repetitions among the first announcements")
		}
		if last := firsts[count-1].after; last > time.Second {
			t.Errorf("the last address waited %v", last)
		}
	})
}
