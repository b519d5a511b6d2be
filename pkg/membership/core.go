package membership

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	joinsAtOnce  = 8
	joinPause    = 200 * time.Millisecond // between attempts to join the same peer
	protestPause = 100 * time.Millisecond // between answers to being called dead
	settleAlone  = 500 * time.Millisecond // for others to find us when the API lists nobody
	settleLimit  = 2 * time.Second
	portPatience = 30 * time.Second
	greeters     = 3                    // expected number of members that greet one that is missing, each time
	asksAtOnce   = 2                    // of those that returned, each heartbeatInterval
	askSpread    = 5 * time.Millisecond // per member: so that not all of them ask one that returned at once
)

// edge is what the core needs of the world. None of its methods block; join ends with a call of core.joined.
type edge interface {
	send(to netip.AddrPort, encoded []byte)
	gossip(encoded []byte)
	echo(to netip.Addr)
	// resolve makes the kernel look for these neighbours again.
	resolve(addrs []netip.AddrPort)
	join(to netip.AddrPort, name string)
	seeds() []netip.AddrPort
	changed(live int)
	lost(reason LossReason)
}

// core is the protocol among the speakers: heartbeats, judgement, obituaries, and finding each other again.
// It is safe for concurrent use.
type core struct {
	edge     edge
	log      *slog.Logger
	started  time.Time
	settled  chan struct{}
	self     sighting
	selfAddr netip.AddrPort

	mu       sync.Mutex
	roster   *roster
	ring     ring
	detector *detector
	joins    map[netip.AddrPort]time.Time // lately begun
	inFlight map[netip.AddrPort]bool
	returned []string // came back by others' word: they are asked for their state
	askAt    time.Time

	lastHeartbeat, lastHello, lastProtest time.Time
}

func newCore(now time.Time, self sighting, addr netip.AddrPort, e edge, log *slog.Logger) *core {
	return &core{
		edge: e, log: log, started: now, self: self, selfAddr: addr,
		settled:  make(chan struct{}),
		roster:   newRoster(self.Name),
		ring:     newRing([]string{self.Name}),
		detector: newDetector(now),
		joins:    map[netip.AddrPort]time.Time{},
		inFlight: map[netip.AddrPort]bool{},
	}
}

// message returns one that carries this speaker's own sighting.
func (c *core) message(now time.Time, k kind) message {
	from := c.self
	from.Uptime = now.Sub(c.started).Truncate(time.Millisecond)
	return message{Kind: k, From: from, Addr: c.selfAddr}
}

// tick does all that is due by time. The caller hands over every message and echo reply that is waiting first.
func (c *core) tick(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.lastHeartbeat) >= heartbeatInterval-tickInterval/2 {
		c.lastHeartbeat = now
		c.sendTo(c.ring.watchers(c.self.Name), c.message(now, kindHeartbeat))
		c.askReturned(now)
	}
	for _, v := range c.detector.tick(now) {
		c.apply(now, v)
	}
	if now.Sub(c.lastHello) >= helloInterval {
		c.lastHello = now
		c.findOthers(now)
	}
}

// findOthers looks for speakers that are not members, and sees to those that came back unnoticed.
func (c *core) findOthers(now time.Time) {
	c.roster.setSeeds(now, c.edge.seeds())
	addrs := c.roster.greet(now, func(among int) bool { return among <= greeters || rand.IntN(among) < greeters })
	if len(addrs) > 0 {
		c.edge.resolve(addrs)
	}
	hello := c.message(now, kindHello).encode()
	for _, addr := range addrs {
		c.edge.send(addr, hello)
	}
	for _, addr := range c.roster.unanswered(now, portPatience) {
		c.log.Warn("a speaker that the API lists was never heard: open UDP and TCP between the nodes on this port, and look whether it runs",
			"address", addr)
	}
	for _, name := range c.roster.outlived(now) {
		c.raise(now, name)
	}
	c.settle(now)
}

func (c *core) apply(now time.Time, v verdict) {
	p := c.roster.peers[v.name]
	switch {
	case p == nil:
	case v.lost != "":
		about := p.seen
		about.Name = v.name
		if !c.bury(now, about, v.lost) {
			return
		}
		obituary := message{Kind: kindObituary, About: about}
		c.sendTo(c.others(), obituary)
		c.edge.gossip(obituary.encode())
	case v.echo:
		c.edge.echo(p.addr.Addr())
		if v.doubt {
			doubt := c.message(now, kindDoubt)
			doubt.About = sighting{Name: v.name}
			c.sendTo(slices.DeleteFunc(c.ring.watchers(v.name), func(name string) bool { return name == c.self.Name }), doubt)
		}
	}
}

// answered takes an echo reply.
func (c *core) answered(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.detector.watches {
		if p := c.roster.peers[name]; p != nil && p.addr.Addr() == addr {
			c.detector.answered(name)
		}
	}
}

// receive takes a message, direct or passed on; replicas are not its business.
func (c *core) receive(now time.Time, m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m.Kind {
	case kindObituary:
		c.obituary(now, m.About)
		return
	case kindReturn:
		if c.roster.returned(now, m.About) {
			c.log.Info("member is back", "member", m.About.Name)
			c.askLater(now, m.About.Name)
			c.rering()
		}
		return
	}
	if !m.Kind.direct() || m.From.Name == c.self.Name {
		return
	}
	if m.Kind == kindBye {
		c.bury(now, m.From, Left)
		return
	}
	if c.roster.hear(now, m.From, m.Addr) {
		c.join(now, m.Addr, m.From.Name)
	}
	c.detector.heard(m.From.Name)
	switch m.Kind {
	case kindHello:
		c.edge.send(m.Addr, c.message(now, kindHeartbeat).encode())
	case kindDoubt:
		if age, ok := c.detector.evidence(m.About.Name); ok {
			vouch := c.message(now, kindVouch)
			vouch.About, vouch.Age = c.roster.peers[m.About.Name].seen, age
			c.edge.send(m.Addr, vouch.encode())
		}
	case kindVouch:
		if c.roster.news(m.About) {
			c.detector.vouched(m.About.Name, m.Age)
		}
	case kindProfile:
		if meta, err := decodeProfile(m.Body); err == nil {
			if p := c.roster.peers[m.From.Name]; p.live() {
				p.adopt(meta)
				c.edge.changed(len(c.roster.live()))
			}
		}
	}
}

// obituary believes others who say that a member has lost power, unless there is fresh evidence of its life.
func (c *core) obituary(now time.Time, about sighting) {
	if about.Name == c.self.Name {
		if now.Sub(c.lastProtest) >= protestPause {
			c.lastProtest = now
			c.sendTo(c.ring.watchers(c.self.Name), c.message(now, kindHello))
		}
		return
	}
	if _, alive := c.detector.evidence(about.Name); !alive {
		c.bury(now, about, PowerLost)
	}
}

func (c *core) bury(now time.Time, about sighting, reason LossReason) bool {
	if !c.roster.bury(now, about, reason) {
		return false
	}
	c.log.Info("member lost", "member", about.Name, "reason", reason)
	c.edge.lost(reason)
	c.rering()
	return true
}

// listed takes memberlist's word that a member lives.
func (c *core) listed(now time.Time, name string, addr netip.AddrPort, meta profile, joined bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roster.list(now, name, addr, meta, joined) {
		c.askLater(now, name)
	}
	if joined {
		c.log.Info("member joined", "member", name, "address", addr)
	}
	c.rering()
}

// unlisted takes memberlist's word that a member is gone.
func (c *core) unlisted(now time.Time, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.roster.peers[name]
	wasLive := p != nil && p.live()
	reason := c.roster.unlist(now, name)
	if wasLive && name != c.self.Name {
		c.log.Info("member lost", "member", name, "reason", reason)
		c.edge.lost(reason)
	}
	c.rering()
}

// joined takes the result of a join; after a good one the peer's state is merged, and the peer may count again.
func (c *core) joined(now time.Time, addr netip.AddrPort, name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.inFlight, addr)
	if err != nil {
		c.log.Debug("join failed", "member", name, "address", addr, "error", err)
		if p := c.roster.peers[name]; p != nil && p.live() {
			c.askLater(now, name)
		}
		return
	}
	if c.raise(now, name) {
		news := message{Kind: kindReturn, About: c.roster.peers[name].seen}
		c.sendTo(c.others(), news)
		c.edge.gossip(news.encode())
	}
	c.settle(now)
}

func (c *core) raise(now time.Time, name string) bool {
	if !c.roster.raise(now, name) {
		return false
	}
	c.log.Info("member is back", "member", name)
	c.rering()
	return true
}

// join fetches a peer's state, and gives it ours: at most once at a time for each peer. It returns false if now is
// not the time.
func (c *core) join(now time.Time, addr netip.AddrPort, name string) bool {
	if c.inFlight[addr] || len(c.inFlight) >= joinsAtOnce || now.Sub(c.joins[addr]) < joinPause {
		return false
	}
	for other, tried := range c.joins {
		if now.Sub(tried) >= joinPause {
			delete(c.joins, other)
		}
	}
	c.joins[addr] = now
	c.inFlight[addr] = true
	c.edge.join(addr, name)
	return true
}

func (c *core) askLater(now time.Time, name string) {
	if len(c.returned) == 0 {
		c.askAt = now.Add(rand.N(askSpread * time.Duration(len(c.ring)+1)))
	}
	if !slices.Contains(c.returned, name) {
		c.returned = append(c.returned, name)
	}
}

// askReturned joins the peers that came back by others' word, a few at a time and in any order: that spreads what
// they know quickly, without n² exchanges at one moment when a large cluster heals.
func (c *core) askReturned(now time.Time) {
	if now.Before(c.askAt) {
		return
	}
	rand.Shuffle(len(c.returned), func(i, j int) { c.returned[i], c.returned[j] = c.returned[j], c.returned[i] })
	names := c.returned[:min(len(c.returned), asksAtOnce)]
	c.returned = c.returned[len(names):]
	for _, name := range names {
		if p := c.roster.peers[name]; p != nil && p.live() && !c.join(now, p.addr, name) {
			c.askLater(now, name)
		}
	}
}

// settle closes settled once there is no reason to expect that more members turn up soon.
func (c *core) settle(now time.Time) {
	select {
	case <-c.settled:
		return
	default:
	}
	age := now.Sub(c.started)
	found := c.roster.seedsJoined() && (len(c.roster.seeds) > 0 || len(c.roster.live()) > 1 || age >= settleAlone)
	if found || age >= settleLimit {
		close(c.settled)
	}
}

// rering follows a change of the live members.
func (c *core) rering() {
	names := append(c.others(), c.self.Name)
	c.ring = newRing(names)
	c.detector.watch(c.ring.watched(c.self.Name))
	c.edge.changed(len(names))
}

func (c *core) others() []string {
	var names []string
	for _, p := range c.roster.live() {
		if p.name != c.self.Name {
			names = append(names, p.name)
		}
	}
	return names
}

func (c *core) sendTo(names []string, m message) {
	if len(names) == 0 {
		return
	}
	encoded := m.encode()
	for _, name := range names {
		if p := c.roster.peers[name]; p != nil {
			c.edge.send(p.addr, encoded)
		}
	}
}

// broadcast sends a message to every live member directly.
func (c *core) broadcast(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendTo(c.others(), m)
}

func (c *core) members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var members []Member
	for _, p := range c.roster.live() {
		members = append(members, Member{
			Name: p.name, Addr: p.addr.Addr(),
			Leaving: p.profile.Leaving, MACs: p.profile.MACs, Interfaces: p.profile.Interfaces,
		})
	}
	return members
}

func (c *core) powerless() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roster.powerless()
}

func (c *core) quorum(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roster.quorum(now)
}
