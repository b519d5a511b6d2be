package membership

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster starts a speaker on each of count nodes and waits until all see all.
func cluster(t testing.TB, v6 bool, count int) *lan {
	t.Helper()
	l := newLAN(t, v6, count)
	for _, n := range l.nodes {
		n.start(l.nodes...)
	}
	l.waitForAll(time.Time{}, 5*time.Second)
	// The detector has to learn first that the kernels answer.
	time.Sleep(2 * kernelCheckFirst)
	return l
}

func (l *lan) names() []string {
	var names []string
	for _, n := range l.nodes {
		names = append(names, n.name)
	}
	return names
}

func (l *lan) waitForAll(since time.Time, limit time.Duration) {
	l.t.Helper()
	for _, n := range l.nodes {
		n.wait(since, limit, "sees all members", sees(l.names()...))
	}
}

func families(t *testing.T, test func(t *testing.T, v6 bool)) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, v6)
		})
	}
}

func TestPowerLoss(t *testing.T) {
	const (
		limit   = 700 * time.Millisecond
		starved = 200 * time.Millisecond // no process of the machine ran for so long in all
	)
	for _, load := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%v", load), func(t *testing.T) {
			families(t, func(t *testing.T, v6 bool) {
				l := cluster(t, v6, 4)
				if load {
					before := time.Now()
					burn(t)
					time.Sleep(3 * time.Second)
					for _, n := range l.nodes {
						n.never(before, "has lost a member that was merely busy", func(v view) bool { return len(v.Members) != 4 })
					}
				}
				victim := l.nodes[1]
				stop := measurePauses()
				victim.cut()
				start := time.Now()
				others := slices.DeleteFunc(slices.Clone(l.nodes), func(n *machine) bool { return n == victim })
				for _, n := range others {
					n.wait(start, 8*time.Second, "drops the node without power", lacks(victim.name))
				}
				pauses := stop()
				for _, n := range others {
					v := n.wait(start, 0, "drops the node without power", lacks(victim.name))
					after := v.At.Sub(start)
					t.Logf("%s noticed after %s, in which the machine paused for %s", n.name, after.Round(time.Millisecond), pauses)
					if after-pauses > limit {
						n.dump()
						t.Errorf("%s noticed only after %s", n.name, after)
					}
					if pauses > starved {
						v = n.wait(start, 8*time.Second, "sees the others again, after a pause in which nobody could tell them from dead", func(v view) bool { return len(v.Members) == 3 && v.Quorum })
					}
					if len(v.Members) != 3 || !v.Quorum {
						t.Errorf("%s sees %v, quorum %v", n.name, v.Members, v.Quorum)
					}
				}
			})
		})
	}
}

// Without the capability for echo requests the speaker says so, and judges more slowly.
func TestPowerLossWithoutCapability(t *testing.T) {
	t.Parallel()
	l := newLAN(t, false, 3)
	for _, n := range l.nodes {
		n.withoutRaw = true
		n.start(l.nodes...)
	}
	l.waitForAll(time.Time{}, 5*time.Second)
	time.Sleep(time.Second)
	l.nodes[0].cut()
	start := time.Now()
	for _, n := range l.nodes[1:] {
		v := n.wait(start, 5*time.Second, "drops the node without power", lacks("node-1"))
		if after := v.At.Sub(start); after < 700*time.Millisecond || after > 2*time.Second {
			t.Errorf("%s noticed after %s, want about a second", n.name, after)
		}
		if n.logged("NET_RAW") != 1 {
			n.dump()
			t.Errorf("%s did not say that it lacks NET_RAW", n.name)
		}
	}
}

// BenchmarkPowerLoss measures the time from a cut cable until all others have dropped the node. Run it with
// -benchtime=100x or the like: each round takes about two seconds.
func BenchmarkPowerLoss(b *testing.B) {
	for _, load := range []bool{false, true} {
		b.Run(fmt.Sprintf("busy=%v", load), func(b *testing.B) {
			l := cluster(b, false, 4)
			if load {
				burn(b)
			}
			var took []time.Duration
			for i := range b.N {
				victim := l.nodes[i%len(l.nodes)]
				victim.cut()
				start := time.Now()
				var last time.Duration
				for _, n := range l.nodes {
					if n != victim {
						last = max(last, n.wait(start, 3*time.Second, "drops the node", lacks(victim.name)).At.Sub(start))
					}
				}
				took = append(took, last)
				victim.wait(start, 3*time.Second, "is alone", sees(victim.name))
				healed := time.Now()
				victim.plug()
				l.waitForAll(healed, 5*time.Second)
				time.Sleep(500*time.Millisecond + rand.N(heartbeatInterval))
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms-median")
			b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "ms-p99")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms-max")
		})
	}
}

func TestSpeakerStoppedStays(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := cluster(t, v6, 3)
		victim := l.nodes[0]
		start := time.Now()
		victim.signal(syscall.SIGSTOP)
		time.Sleep(2 * time.Second)
		victim.signal(syscall.SIGCONT)
		time.Sleep(time.Second)
		for _, n := range l.nodes {
			n.never(start, "lost a member", func(v view) bool { return len(v.Members) != 3 })
		}
	})
}

func TestSpeakerKilledComesBack(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := cluster(t, v6, 3)
		victim := l.nodes[0]
		for _, away := range []time.Duration{0, time.Second, 3 * time.Second} {
			start := time.Now()
			victim.signal(syscall.SIGKILL)
			<-victim.exited
			time.Sleep(away)
			victim.start() // its API is gone: the others have to find it
			restarted := time.Now()
			v := victim.wait(time.Time{}, time.Second, "is a member again", sees(l.names()...))
			t.Logf("away %s: sees all after %s", away, v.At.Sub(restarted).Round(time.Millisecond))
			time.Sleep(3 * time.Second)
			for _, n := range l.nodes[1:] {
				n.never(start, "lost a member", func(v view) bool { return len(v.Members) != 3 })
			}
		}
	})
}

func TestSpeakerGoneIsDropped(t *testing.T) {
	t.Parallel()
	l := cluster(t, false, 3)
	victim := l.nodes[0]
	start := time.Now()
	victim.signal(syscall.SIGKILL)
	for _, n := range l.nodes[1:] {
		v := n.wait(start, 12*time.Second, "drops the speaker", lacks(victim.name))
		after := v.At.Sub(start)
		t.Logf("%s dropped it after %s", n.name, after.Round(time.Millisecond))
		if after < 4*time.Second {
			t.Errorf("%s dropped the speaker of a living node after %s", n.name, after)
		}
	}
	again := time.Now()
	victim.start()
	l.waitForAll(again, 2*time.Second)
}

func TestPowerLossWhileSpeakerIsAway(t *testing.T) {
	t.Parallel()
	l := cluster(t, false, 3)
	victim := l.nodes[0]
	victim.signal(syscall.SIGKILL)
	time.Sleep(time.Second)
	victim.cut()
	start := time.Now()
	for _, n := range l.nodes[1:] {
		v := n.wait(start, 700*time.Millisecond, "drops the node without power", lacks(victim.name))
		t.Logf("%s noticed after %s", n.name, v.At.Sub(start).Round(time.Millisecond))
	}
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		for _, length := range []time.Duration{time.Second, 8 * time.Second} {
			t.Run(length.String(), func(t *testing.T) {
				t.Parallel()
				l := cluster(t, v6, 4)
				start := time.Now()
				for _, n := range l.nodes {
					n.cut()
				}
				for _, n := range l.nodes {
					v := n.wait(start, 2*time.Second, "is alone", sees(n.name))
					if v.Quorum {
						t.Errorf("%s alone of four has a quorum", n.name)
					}
				}
				for _, n := range l.nodes {
					n.say("say word-of-" + n.name)
				}
				time.Sleep(length - time.Since(start))
				healing := time.Now()
				for _, n := range l.nodes {
					n.plug()
				}
				healed := time.Now()
				for _, n := range l.nodes {
					v := n.wait(healing, 5*time.Second, "is whole again", func(v view) bool {
						return len(v.Members) == 4 && len(v.State) == 4 && v.Quorum
					})
					after := v.At.Sub(healed)
					t.Logf("%s whole after %s", n.name, after.Round(time.Millisecond))
					if after > time.Second {
						n.dump()
						t.Errorf("%s took %s to heal", n.name, after)
					}
				}
			})
		}
	})
}

func TestBroadcastUpdateLeave(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := cluster(t, v6, 3)
		first, others := l.nodes[0], l.nodes[1:]
		const atOnce = 300 * time.Millisecond
		start := time.Now()
		check := func(n *machine, what string, ok func(view) bool) {
			t.Helper()
			v := n.wait(start, 2*time.Second, what, ok)
			if after := v.At.Sub(start); after > atOnce {
				t.Errorf("%s: %s only after %s", n.name, what, after)
			}
		}
		first.say("say hello")
		for _, n := range others {
			check(n, "hears the broadcast", func(v view) bool { return slices.Contains(v.State, "hello") })
		}
		start = time.Now()
		first.say("leaving")
		for _, n := range others {
			check(n, "sees it leaving", func(v view) bool { return v.Members[0] == "node-1!" && v.MACs["node-1"] == 1 })
		}
		start = time.Now()
		first.say("leave")
		for _, n := range others {
			check(n, "sees it gone", lacks(first.name))
		}
		<-first.exited
		for _, n := range others {
			n.wait(start, time.Second, "keeps its quorum", func(v view) bool { return v.Quorum && len(v.Members) == 2 })
		}
		again := time.Now()
		first.start(others...)
		l.waitForAll(again, 2*time.Second)
		first.wait(again, time.Second, "has the state again", func(v view) bool { return slices.Contains(v.State, "hello") })
	})
}

func TestAnotherKeyIsReportedOnce(t *testing.T) {
	t.Parallel()
	l := newLAN(t, false, 2)
	l.nodes[0].start(l.nodes...)
	l.key = strings.Repeat("cd", KeySize)
	l.nodes[1].start(l.nodes...)
	time.Sleep(3 * time.Second)
	for _, n := range l.nodes {
		if got := n.logged("uses another memberlist key"); got != 1 {
			n.dump()
			t.Errorf("%s warned %d times about the key, want once", n.name, got)
		}
		n.never(time.Time{}, "has let the stranger in", func(v view) bool { return len(v.Members) != 1 })
	}
}

func TestStartRefuses(t *testing.T) {
	good := Config{Name: "a", Bind: netip.MustParseAddr("192.0.2.1"), Port: 7946, Key: make([]byte, KeySize)}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"short key":          {func(c *Config) { c.Key = c.Key[:16] }, "has 16 bytes"},
		"no key":             {func(c *Config) { c.Key = nil }, "has 0 bytes"},
		"no name":            {func(c *Config) { c.Name = "" }, "node name"},
		"no port":            {func(c *Config) { c.Port = 0 }, "port is 0"},
		"any address":        {func(c *Config) { c.Bind = netip.IPv4Unspecified() }, "node address"},
		"no address":         {func(c *Config) { c.Bind = netip.Addr{} }, "node address"},
		"link-local address": {func(c *Config) { c.Bind = netip.MustParseAddr("fe80::1%eth0") }, "without a zone"},
		"not the node's own": {func(c *Config) {}, "192.0.2.1 port 7946"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			c.Log = slog.New(slog.DiscardHandler)
			c.Replica = &set{words: map[string]bool{}}
			test.change(&c)
			_, err := Start(context.Background(), c)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Start: %v, want an error with %q", err, test.want)
			}
		})
	}
}
