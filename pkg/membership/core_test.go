package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is a LAN of simulated nodes, for tests in a synctest bubble. It stands in for memberlist too, without
// its slow path: a join makes all members of both sides know each other, and gossip goes to everyone twice.
type world struct {
	mu    sync.Mutex
	nodes map[netip.Addr]*fakeNode
	loss  float64            // of packets, each way
	cuts  map[[2]string]bool // pairs of nodes that can't reach each other, in both orders
}

// fakeNode is the edge of one core.
type fakeNode struct {
	world   *world
	name    string
	addr    netip.AddrPort
	core    *core
	end     chan struct{}
	off     bool // no power, or no network
	stopped bool // the process does not run; what arrives waits
	dead    bool // and it has been killed
	noEcho  bool
	waiting []func()
	losses  []LossReason
	sent    int
	seedsOf []netip.AddrPort
}

func newWorld(count int) (*world, []*fakeNode) {
	w := &world{nodes: map[netip.Addr]*fakeNode{}, cuts: map[[2]string]bool{}}
	var nodes []*fakeNode
	for i := range count {
		n := &fakeNode{world: w, name: fmt.Sprintf("node-%d", i+1)}
		n.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte((i + 1) >> 8), byte(i + 1)}), 7946)
		w.nodes[n.addr.Addr()] = n
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		for _, other := range nodes {
			n.core.listed(time.Now(), other.name, other.addr, profile{Instance: other.core.self.Instance}, true)
		}
	}
	time.Sleep(time.Second) // the detectors learn that the kernels answer
	return w, nodes
}

// start begins a new run of the speaker.
func (n *fakeNode) start() {
	now := time.Now()
	n.end = make(chan struct{})
	instance, phase := rand.Uint64(), rand.N(tickInterval)
	c := newCore(now, sighting{Name: n.name, Instance: instance}, n.addr, n, slog.New(slog.DiscardHandler))
	n.world.set(func() { n.core, n.waiting, n.stopped, n.dead = c, nil, false, false })
	n.core.listed(now, n.name, n.addr, profile{Instance: n.core.self.Instance}, true)
	go n.run(n.core, n.end, phase)
}

func (n *fakeNode) run(c *core, end chan struct{}, phase time.Duration) {
	time.Sleep(phase)
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-end:
			return
		}
		for n.isStopped() {
			time.Sleep(time.Millisecond)
		}
		n.drain()
		c.tick(time.Now())
	}
}

func (n *fakeNode) speaker() *core {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return n.core
}

func (n *fakeNode) isStopped() bool {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return n.stopped && !n.dead
}

func (n *fakeNode) kill() {
	close(n.end)
	n.world.set(func() { n.stopped, n.dead = true, true })
}

// drain handles what arrived while the process was stopped.
func (n *fakeNode) drain() {
	n.world.mu.Lock()
	waiting := n.waiting
	n.waiting = nil
	n.world.mu.Unlock()
	for _, arrived := range waiting {
		arrived()
	}
}

// carry delivers a packet, or loses it. handle runs in the receiving process once that runs, or in its kernel.
func (w *world) carry(from, to *fakeNode, kernel bool, handle func()) {
	if from.off || to == nil || to.off || w.cuts[[2]string{from.name, to.name}] || rand.Float64() < w.loss {
		return
	}
	time.AfterFunc(200*time.Microsecond, func() {
		w.mu.Lock()
		if to.stopped && !kernel {
			to.waiting = append(to.waiting, handle)
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		handle()
	})
}

func (n *fakeNode) send(to netip.AddrPort, encoded []byte) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	n.sent++
	receiver := n.world.nodes[to.Addr()]
	n.world.carry(n, receiver, false, func() {
		m, err := decodeMessage(encoded)
		if err != nil {
			panic(err)
		}
		receiver.speaker().receive(time.Now(), m)
	})
}

func (n *fakeNode) gossip(encoded []byte) {
	for _, delay := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond} {
		time.AfterFunc(delay, func() { n.sendToAll(encoded) })
	}
}

func (n *fakeNode) sendToAll(encoded []byte) {
	n.world.mu.Lock()
	var others []netip.AddrPort
	for _, other := range n.world.nodes {
		if other != n {
			others = append(others, other.addr)
		}
	}
	n.world.mu.Unlock()
	for _, addr := range others {
		n.send(addr, encoded)
	}
}

func (n *fakeNode) echo(to netip.Addr) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	target := n.world.nodes[to]
	n.world.carry(n, target, true, func() {
		n.world.mu.Lock()
		defer n.world.mu.Unlock()
		if !target.noEcho {
			n.world.carry(target, n, false, func() { n.speaker().answered(to) })
		}
	})
}

func (n *fakeNode) join(to netip.AddrPort, name string) {
	c := n.speaker()
	time.AfterFunc(2*time.Millisecond, func() {
		n.world.mu.Lock()
		target := n.world.nodes[to.Addr()]
		ok := !n.off && !target.off && !target.stopped && !n.stopped && !n.world.cuts[[2]string{n.name, target.name}]
		n.world.mu.Unlock()
		now := time.Now()
		if !ok {
			c.joined(now, to, name, errors.New("no connection"))
			return
		}
		for _, pair := range [][2]*fakeNode{{n, target}, {target, n}} {
			for _, p := range pair[0].listedPeers() {
				pair[1].hearOf(now, p)
				for _, known := range pair[1].listedPeers() {
					if other := n.world.nodes[known.addr.Addr()]; other != pair[1] {
						time.AfterFunc(100*time.Millisecond, func() { other.hearOf(time.Now(), p) })
					}
				}
			}
		}
		c.joined(now, to, name, nil)
	})
}

func (n *fakeNode) listedPeers() []peer {
	c := n.speaker()
	c.mu.Lock()
	defer c.mu.Unlock()
	var listed []peer
	for _, p := range c.roster.peers {
		if p.listed {
			listed = append(listed, *p)
		}
	}
	return listed
}

// hearOf is memberlist's part: a member that is not listed yet, or has another run, is announced.
func (n *fakeNode) hearOf(now time.Time, p peer) {
	n.world.mu.Lock()
	current := n.world.nodes[p.addr.Addr()].core.self.Instance
	off, c := n.off, n.core
	n.world.mu.Unlock()
	c.mu.Lock()
	known := c.roster.peers[p.name]
	joined := known == nil || !known.listed
	news := joined || known.profile.Instance != current
	c.mu.Unlock()
	if news && !off {
		c.listed(now, p.name, p.addr, profile{Instance: current}, joined)
	}
}

func (n *fakeNode) resolve([]netip.AddrPort) {}
func (n *fakeNode) seeds() []netip.AddrPort  { return n.seedsOf }
func (n *fakeNode) changed(int)              {}
func (n *fakeNode) lost(reason LossReason) {
	n.world.set(func() { n.losses = append(n.losses, reason) })
}

func (n *fakeNode) sees() []string {
	var names []string
	for _, m := range n.core.members() {
		names = append(names, m.Name)
	}
	return names
}

// within waits until each of the nodes sees exactly the wanted ones and returns how long that took.
func within(t *testing.T, limit time.Duration, nodes, want []*fakeNode) time.Duration {
	t.Helper()
	var names []string
	for _, n := range want {
		names = append(names, n.name)
	}
	slices.Sort(names)
	start := time.Now()
	for {
		bad := slices.IndexFunc(nodes, func(n *fakeNode) bool { return !slices.Equal(n.sees(), names) })
		if bad < 0 {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("after %s %s sees %v, want %v", limit, nodes[bad].name, nodes[bad].sees(), names)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// noLosses checks that none of the nodes has ever lost a member.
func noLosses(t *testing.T, nodes []*fakeNode) {
	t.Helper()
	for _, n := range nodes {
		var losses []LossReason
		n.world.set(func() { losses = n.losses })
		if len(losses) > 0 {
			t.Errorf("%s lost members: %v", n.name, losses)
		}
	}
}

func simulate(t *testing.T, count int, test func(t *testing.T, w *world, nodes []*fakeNode)) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newWorld(count)
		defer func() {
			for _, n := range nodes {
				if !n.dead {
					n.kill()
				}
			}
			time.Sleep(time.Second) // a bubble's clock stops with this goroutine; the others have to end before
		}()
		within(t, 0, nodes, nodes)
		noLosses(t, nodes)
		test(t, w, nodes)
	})
}

func TestCorePowerLoss(t *testing.T) {
	for _, count := range []int{2, 3, 5, 30} {
		for _, loss := range []float64{0, 0.1} {
			t.Run(fmt.Sprintf("%d nodes, %.0f %% loss", count, loss*100), func(t *testing.T) {
				simulate(t, count, func(t *testing.T, w *world, nodes []*fakeNode) {
					w.set(func() { w.loss = loss })
					w.set(func() { nodes[0].off = true })
					took := within(t, 700*time.Millisecond, nodes[1:], nodes[1:])
					if took < 200*time.Millisecond {
						t.Errorf("the verdict came after %s: too soon to be sure", took)
					}
				})
			})
		}
	}
}

// Starved processes run for a moment now and then. That must neither look like death, nor may word that a member
// was heard go round among its starved watchers and keep it alive when it is dead.
func TestCoreStarved(t *testing.T) {
	for _, count := range []int{2, 4, 10} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			simulate(t, count, func(t *testing.T, w *world, nodes []*fakeNode) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, n := range nodes {
					go n.starve(ctx)
				}
				time.Sleep(time.Minute)
				noLosses(t, nodes)
				w.set(func() { nodes[0].off = true })
				t.Logf("gone after %s", within(t, 1500*time.Millisecond, nodes[1:], nodes[1:]))
			})
		})
	}
}

// starve lets the process run for 20 ms at a time, with pauses of up to 300 ms.
func (n *fakeNode) starve(ctx context.Context) {
	for ctx.Err() == nil {
		n.world.set(func() { n.stopped = true })
		time.Sleep(rand.N(300 * time.Millisecond))
		n.world.set(func() { n.stopped = false })
		n.drain()
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// Some neighbours in the ring lose power together: those who watch each other can't report each other.
func TestCoreCascade(t *testing.T) {
	simulate(t, 20, func(t *testing.T, w *world, nodes []*fakeNode) {
		var dead, living []*fakeNode
		victim := nodes[0].name
		gone := append(nodes[0].core.ring.watchers(victim), victim)
		for _, n := range nodes {
			if slices.Contains(gone, n.name) {
				dead = append(dead, n)
			} else {
				living = append(living, n)
			}
		}
		w.set(func() {
			for _, n := range dead {
				n.off = true
			}
		})
		t.Logf("all gone after %s", within(t, 1500*time.Millisecond, living, living))
	})
}

func TestCoreProcessAway(t *testing.T) {
	for name, disturb := range map[string]func(w *world, n *fakeNode){
		"stopped for 2 s": func(w *world, n *fakeNode) {
			w.set(func() { n.stopped = true })
			time.Sleep(2 * time.Second)
			w.set(func() { n.stopped = false })
		},
		"killed and restarted": func(w *world, n *fakeNode) {
			n.kill()
			time.Sleep(3 * time.Second)
			n.start()
		},
		"stopped again and again": func(w *world, n *fakeNode) {
			for range 40 {
				w.set(func() { n.stopped = true })
				time.Sleep(230 * time.Millisecond)
				w.set(func() { n.stopped = false })
				time.Sleep(30 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, count := range []int{2, 4, 9} {
				simulate(t, count, func(t *testing.T, w *world, nodes []*fakeNode) {
					disturb(w, nodes[0])
					within(t, 500*time.Millisecond, nodes, nodes)
					time.Sleep(time.Second)
					within(t, 0, nodes, nodes)
					noLosses(t, nodes)
				})
			}
		})
	}
}

func TestCoreLostPackets(t *testing.T) {
	simulate(t, 5, func(t *testing.T, w *world, nodes []*fakeNode) {
		w.set(func() { w.loss = 0.1 })
		time.Sleep(10 * time.Minute)
		noLosses(t, nodes)
	})
}

func TestCoreBrokenLink(t *testing.T) {
	simulate(t, 4, func(t *testing.T, w *world, nodes []*fakeNode) {
		a, b := nodes[0].name, nodes[1].name
		w.set(func() { w.cuts[[2]string{a, b}], w.cuts[[2]string{b, a}] = true, true })
		time.Sleep(time.Minute)
		noLosses(t, nodes)
	})
}

func TestCoreWithoutEcho(t *testing.T) {
	simulate(t, 3, func(t *testing.T, w *world, nodes []*fakeNode) {
		w.set(func() { nodes[0].noEcho = true })
		time.Sleep(30 * time.Second)
		noLosses(t, nodes)
		w.set(func() { nodes[0].off = true })
		if took := within(t, 1200*time.Millisecond, nodes[1:], nodes[1:]); took < 800*time.Millisecond {
			t.Errorf("the verdict came after %s: too soon for a node that answers no echo", took)
		}
		if !slices.Contains(append(nodes[1].losses, nodes[2].losses...), Silent) {
			t.Errorf("lost by reason of %v and %v", nodes[1].losses, nodes[2].losses)
		}
	})
}

// A speaker that stalls on a node without echo is declared dead; it has to come back by itself as soon as it runs.
func TestCoreProtest(t *testing.T) {
	simulate(t, 6, func(t *testing.T, w *world, nodes []*fakeNode) {
		w.set(func() { nodes[0].noEcho = true })
		time.Sleep(30 * time.Second)
		w.set(func() { nodes[0].stopped = true })
		within(t, 2*time.Second, nodes[1:], nodes[1:])
		w.set(func() { nodes[0].stopped = false })
		t.Logf("back after %s", within(t, 500*time.Millisecond, nodes, nodes))
	})
}

func TestCorePartition(t *testing.T) {
	for _, count := range []int{4, 12, 40} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			simulate(t, count, func(t *testing.T, w *world, nodes []*fakeNode) {
				left, right := nodes[:count/2], nodes[count/2:]
				w.set(func() {
					for _, a := range left {
						for _, b := range right {
							w.cuts[[2]string{a.name, b.name}], w.cuts[[2]string{b.name, a.name}] = true, true
						}
					}
				})
				t.Logf("parted after %s", within(t, 2*time.Second, left, left))
				within(t, time.Second, right, right)
				if left[0].core.quorum(time.Now()) {
					t.Error("half of the members are a quorum")
				}
				time.Sleep(time.Second)
				w.set(func() { clear(w.cuts) })
				t.Logf("healed after %s", within(t, time.Second, nodes, nodes))
			})
		})
	}
}

func TestCoreTrafficPerMember(t *testing.T) {
	rate := func(count int) (perSecond int) {
		simulate(t, count, func(t *testing.T, w *world, nodes []*fakeNode) {
			w.set(func() { nodes[0].sent = 0 })
			time.Sleep(10 * time.Second)
			w.set(func() { perSecond = nodes[0].sent / 10 })
		})
		return perSecond
	}
	small, large := rate(4), rate(200)
	if large > small+1 || large > 35 {
		t.Errorf("a member sends %d packets per second among 4, and %d among 200", small, large)
	}
}

func TestCoreSeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, nodes := newWorld(1)
		second := &fakeNode{world: w, name: "node-2", addr: netip.MustParseAddrPort("10.0.0.2:7946")}
		w.set(func() { w.nodes[second.addr.Addr()] = second })
		second.seedsOf = []netip.AddrPort{nodes[0].addr}
		second.start()
		select {
		case <-second.core.settled:
			t.Error("settled before it has found the others")
		default:
		}
		both := append(nodes, second)
		within(t, 500*time.Millisecond, both, both)
		<-second.core.settled
		if took := time.Since(second.core.started); took > 500*time.Millisecond {
			t.Errorf("settled only after %s", took)
		}
		for _, n := range both {
			close(n.end)
		}
	})
}
