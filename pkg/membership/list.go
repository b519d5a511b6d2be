// Package membership tells which speakers are alive, and carries the state that they share.
//
// It is memberlist with a fast failure detector beside it. memberlist finds the members, gossips, and gives up a
// speaker whose process has been away for about five seconds. The detector finds out within half a second that a
// node has lost power, and tells that apart from a speaker that is merely busy or restarting, by asking the
// node's kernel. docs/decisions/0001-failure-detection.md has the reasons and the measurements.
package membership

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// KeySize is the length of the memberlist key in bytes, for AES-256.
const KeySize = 32

// MaxBroadcast is the size in bytes up to which a broadcast fits into one packet. Longer ones go over TCP, which
// is slower, and are not repeated by gossip.
const MaxBroadcast = 1200

const (
	sendQueue  = 8192
	mergeQueue = 4096
)

// Replica is the state that the speakers share. Its methods are called concurrently and must return quickly.
type Replica interface {
	// State returns all of it.
	State() []byte
	// Merge takes another member's whole state, or what a member gave to Broadcast; the same may come repeatedly.
	Merge([]byte)
}

// Config is what Start needs. Peers and Registerer may be nil.
type Config struct {
	Name  string     // the node's, unique among the speakers
	Bind  netip.Addr // the node's address, at which the other speakers reach it
	Port  uint16     // UDP and TCP, the same on all nodes
	Key   []byte     // KeySize bytes, the same on all nodes
	Peers func() []netip.Addr
	// Replica holds the shared state.
	Replica    Replica
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

func (c Config) validate() error {
	switch {
	case c.Name == "" || len(c.Name) > 253:
		return fmt.Errorf("the node name %q has %d characters: a speaker needs its node's name, of 1 to 253 characters", c.Name, len(c.Name))
	case !c.Bind.IsValid() || c.Bind.IsUnspecified() || c.Bind.Zone() != "" || c.Bind.IsMulticast():
		return fmt.Errorf("the node address %q can't be used: it has to be the address at which other nodes reach this one, without a zone", c.Bind)
	case c.Port == 0:
		return errors.New("the memberlist port is 0: it has to be one fixed port, the same on all nodes, such as 7946")
	case len(c.Key) != KeySize:
		return fmt.Errorf("the memberlist key has %d bytes: it has to be %d random bytes; delete its Secret to have a new one made, then restart all speakers", len(c.Key), KeySize)
	}
	return nil
}

// List is this speaker's view of the speakers. It is safe for concurrent use.
type List struct {
	config     Config
	log        *slog.Logger
	core       *core
	memberlist *memberlist.Memberlist
	prober     *prober // nil without the capability for it
	queue      memberlist.TransmitLimitedQueue
	outgoing   chan func()
	merges     chan []byte
	changes    chan struct{}
	updates    chan struct{}
	passedOn   recent
	live       atomic.Int64
	metrics    *metrics

	profileMu sync.Mutex
	profile   profile

	stopMu   sync.Mutex
	stopped  bool
	ready    chan struct{} // closed when memberlist may be called: it calls the delegate before Create returns
	done     chan struct{}
	farewell chan struct{} // ends the heartbeats, before done ends the rest
}

// Start joins the other speakers. When ctx ends the speaker stops without a word, as if it had crashed; call
// Leave before to go in good order.
func Start(ctx context.Context, config Config) (*List, error) {
	config.Bind = config.Bind.Unmap()
	if err := config.validate(); err != nil {
		return nil, err
	}
	l := &List{
		config:   config,
		log:      config.Log,
		outgoing: make(chan func(), sendQueue),
		merges:   make(chan []byte, mergeQueue),
		changes:  make(chan struct{}, 1),
		updates:  make(chan struct{}, 1),
		ready:    make(chan struct{}),
		done:     make(chan struct{}),
		farewell: make(chan struct{}),
		profile:  profile{Instance: rand.Uint64()},
	}
	l.queue.NumNodes = func() int { return int(l.live.Load()) }
	l.queue.RetransmitMult = 4
	var err error
	if l.metrics, err = newMetrics(config.Registerer, &l.live, l.seeds); err != nil {
		return nil, err
	}
	now := time.Now()
	self := sighting{Name: config.Name, Instance: l.profile.Instance}
	l.core = newCore(now, self, netip.AddrPortFrom(config.Bind, config.Port), l, l.log)
	if l.prober, err = newProber(config.Bind, l.core.answered); err != nil {
		l.log.Warn("can't send ICMP echo requests: give the speaker the capability NET_RAW; until then a node without power is noticed after a second or more",
			"error", err)
	}
	if l.memberlist, err = memberlist.Create(l.memberlistConfig()); err != nil {
		close(l.done)
		l.prober.close()
		l.metrics.unregister()
		return nil, fmt.Errorf("can't listen on %s port %d, UDP and TCP: %w", config.Bind, config.Port, err)
	}
	close(l.ready)
	for _, loop := range []func(){l.tickLoop, l.sendLoop, l.mergeLoop, l.updateLoop} {
		go loop()
	}
	context.AfterFunc(ctx, l.stop)
	return l, nil
}

// memberlistConfig starts from memberlist's timing for a LAN: it is the slow path, for speakers that went away
// while their nodes live.
func (l *List) memberlistConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = l.config.Name
	c.BindAddr, c.BindPort = l.config.Bind.String(), int(l.config.Port)
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.SecretKey = l.config.Key
	// A full exchange goes to a peer that was just heard: if it does not answer now, the next hello tries again.
	c.TCPTimeout = time.Second
	c.PushPullInterval = 15 * time.Second
	c.GossipInterval = 100 * time.Millisecond
	// Without this, missing confirmations stretch the slow path to 24 s in clusters of four and more.
	c.SuspicionMaxTimeoutMult = 2
	// A node that comes back with another address may have its old name once it has been dead for a second.
	c.DeadNodeReclaimTime = time.Second
	c.HandoffQueueDepth = mergeQueue
	// LZW costs more time and memory than these small messages save.
	c.EnableCompression = false
	d := &delegate{l}
	c.Delegate, c.Events, c.Conflict = d, d, &conflicts{log: l.log}
	c.Logger = log.New(newLogWriter(l.log), "", 0)
	return c
}

// Members returns the live members, this one included, sorted by name.
func (l *List) Members() []Member { return l.core.members() }

// PowerLost returns the nodes, sorted, whose speakers were lost because the node itself is silent, and have not come back.
func (l *List) PowerLost() []string { return l.core.powerless() }

// Changed receives after Members has changed; several changes may come as one.
func (l *List) Changed() <-chan struct{} { return l.changes }

// Quorum reports whether more than half of the speakers that were known in the last ten minutes, and did not
// leave on purpose, are live.
func (l *List) Quorum() bool { return l.core.quorum(time.Now()) }

// Settled is closed once all speakers that Peers lists have been joined and their state merged, at the latest
// after two seconds. Before, a starting speaker may not know yet what the others do.
func (l *List) Settled() <-chan struct{} { return l.core.settled }

// Broadcast gives a piece of replicated state to every live member's Replica at once, and again by gossip. A few
// pieces of up to MaxBroadcast bytes are better than many small ones.
func (l *List) Broadcast(piece []byte) {
	m := message{Kind: kindReplica, Body: piece}
	if len(piece) > MaxBroadcast {
		encoded := m.encode()
		for _, member := range l.Members() {
			if member.Name != l.config.Name {
				go l.sendReliably(netip.AddrPortFrom(member.Addr, l.config.Port), encoded)
			}
		}
		return
	}
	l.core.broadcast(m)
	l.gossip(m.encode())
}

// Update tells every member at once what this one wants to be known of itself.
func (l *List) Update(leaving bool, macs []net.HardwareAddr, interfaces []string) {
	l.profileMu.Lock()
	l.profile.Revision++
	l.profile.Leaving, l.profile.MACs, l.profile.Interfaces = leaving, macs, interfaces
	l.profileMu.Unlock()

	m := l.core.message(time.Now(), kindProfile)
	m.Body = l.meta(memberlist.MetaMaxSize, true)
	l.core.broadcast(m)
	select {
	case l.updates <- struct{}{}:
	default:
	}
}

// Leave says goodbye to all members and stops. It ends with ctx, or a second later at most.
func (l *List) Leave(ctx context.Context) error {
	l.stopMu.Lock()
	defer l.stopMu.Unlock()
	if l.stopped {
		return nil
	}
	close(l.farewell)
	bye := l.core.message(time.Now(), kindBye).encode()
	for _, member := range l.Members() {
		if member.Name != l.config.Name {
			l.deliver(netip.AddrPortFrom(member.Addr, l.config.Port), bye)
		}
	}
	limit := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(min(limit, time.Until(deadline)), time.Millisecond)
	}
	err := l.memberlist.Leave(limit)
	l.shutdown()
	if err != nil {
		return fmt.Errorf("leaving the other speakers: %w", err)
	}
	return nil
}

func (l *List) stop() {
	l.stopMu.Lock()
	defer l.stopMu.Unlock()
	if !l.stopped {
		close(l.farewell)
		l.shutdown()
	}
}

func (l *List) shutdown() {
	l.stopped = true
	close(l.done)
	l.prober.close()
	if err := l.memberlist.Shutdown(); err != nil {
		l.log.Debug("memberlist shutdown", "error", err)
	}
	l.metrics.unregister()
}

func (l *List) tickLoop() {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.core.tick(time.Now())
		case <-l.farewell:
			return
		}
	}
}

// sendLoop keeps the detector from waiting for the socket: packets to a dead neighbour fill its send buffer.
func (l *List) sendLoop() {
	for {
		select {
		case send := <-l.outgoing:
			send()
		case <-l.done:
			return
		}
	}
}

func (l *List) enqueue(send func()) {
	select {
	case l.outgoing <- send:
	default:
		l.metrics.dropped.WithLabelValues("send").Inc()
	}
}

func (l *List) deliver(to netip.AddrPort, encoded []byte) {
	if err := l.memberlist.SendBestEffort(node(to), encoded); err != nil {
		l.log.Debug("send failed", "to", to, "error", err)
	}
}

func (l *List) sendReliably(to netip.AddrPort, encoded []byte) {
	if err := l.memberlist.SendReliable(node(to), encoded); err != nil {
		l.log.Debug("send over TCP failed", "to", to, "error", err)
	}
}

func node(addr netip.AddrPort) *memberlist.Node {
	return &memberlist.Node{Addr: addr.Addr().AsSlice(), Port: addr.Port()}
}

func (l *List) mergeLoop() {
	for {
		select {
		case piece := <-l.merges:
			l.config.Replica.Merge(piece)
		case <-l.done:
			return
		}
	}
}

// updateLoop gossips the metadata; memberlist blocks until a packet with it has gone out.
func (l *List) updateLoop() {
	for {
		select {
		case <-l.updates:
			if err := l.memberlist.UpdateNode(time.Second); err != nil {
				l.log.Debug("gossiping the metadata", "error", err)
			}
		case <-l.done:
			return
		}
	}
}

// The rest is what the core needs of the world.

func (l *List) send(to netip.AddrPort, encoded []byte) {
	l.enqueue(func() { l.deliver(to, encoded) })
}

func (l *List) echo(to netip.Addr) {
	l.enqueue(func() {
		if err := l.prober.ask(to); err != nil {
			l.log.Debug("echo request failed", "to", to, "error", err)
		}
	})
}

func (l *List) resolve(addrs []netip.AddrPort) {
	l.enqueue(func() {
		if err := forgetUnresolved(addrs); err != nil {
			l.log.Debug("looking for neighbours again", "error", err)
		}
	})
}

// gossip passes a message on that concerns all members, the first time that it is seen. memberlist itself repeats
// it only a few times, to random members.
func (l *List) gossip(encoded []byte) {
	if l.passedOn.first(time.Now(), encoded) {
		l.queue.QueueBroadcast(broadcast(encoded))
	}
}

func (l *List) join(to netip.AddrPort, name string) {
	go func() {
		select {
		case <-l.ready:
		case <-l.done:
			return
		}
		if err := forgetUnresolved([]netip.AddrPort{to}); err != nil {
			l.log.Debug("looking for a neighbour again", "error", err)
		}
		_, err := l.memberlist.Join([]string{to.String()})
		l.core.joined(time.Now(), to, name, err)
	}()
}

func (l *List) seeds() []netip.AddrPort {
	if l.config.Peers == nil {
		return nil
	}
	var seeds []netip.AddrPort
	for _, addr := range l.config.Peers() {
		addr = addr.Unmap()
		if addr != l.config.Bind && addr.Is4() == l.config.Bind.Is4() {
			seeds = append(seeds, netip.AddrPortFrom(addr, l.config.Port))
		}
	}
	return seeds
}

func (l *List) changed(live int) {
	l.live.Store(int64(live))
	select {
	case l.changes <- struct{}{}:
	default:
	}
}

func (l *List) lost(reason LossReason) { l.metrics.losses.WithLabelValues(string(reason)).Inc() }

// meta encodes the profile for memberlist's metadata.
func (l *List) meta(limit int, warn bool) []byte {
	l.profileMu.Lock()
	defer l.profileMu.Unlock()
	encoded, dropped := l.profile.encode(limit)
	if dropped > 0 && warn {
		l.log.Warn("this node has more interfaces than fit into what speakers tell each other: the last ones are left out; exclude those that carry no load-balancer address",
			"left out", dropped, "interfaces", len(l.profile.Interfaces), "MACs", len(l.profile.MACs))
	}
	return encoded
}
