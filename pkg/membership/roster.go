package membership

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// rememberForQuorum is how long a member that vanished still counts as one that might be alive elsewhere.
	rememberForQuorum = 10 * time.Minute
	// rememberForHello is how long a vanished member is still greeted, should it come back while the API is away.
	rememberForHello = 24 * time.Hour
	// proofOfLife is by how much a message must be younger than the last one before a member was declared dead.
	// A verdict takes longer than this; packets that were on their way or in a queue meanwhile are older.
	proofOfLife = 300 * time.Millisecond
	// graveLimit is when memberlist is believed that still counts a member which was declared dead here. It gives
	// a dead one up much sooner, so the message that it has returned must have been lost.
	graveLimit = 30 * time.Second

	helloInterval     = 250 * time.Millisecond
	helloSlowInterval = 5 * time.Second // to those that left, or have been away for longer than rememberForQuorum
	hellosAtOnce      = 8               // one answer from the other side of a partition is enough to heal it
)

// Member is a live speaker.
type Member struct {
	Name       string
	Addr       netip.Addr
	Leaving    bool // it still does its work, but wants to hand it over
	MACs       []net.HardwareAddr
	Interfaces []string
}

// peer is all that is known about one speaker, by its name.
type peer struct {
	name    string
	addr    netip.AddrPort
	profile profile
	listed  bool // memberlist counts it as a member
	// grave is why it does not count here although memberlist may not have noticed yet.
	grave     *grave
	seen      sighting // newest message from itself
	liveSince time.Time
	lastLive  time.Time // zero: never; kept when it stops being live
	lastHeard time.Time // strange or listed; zero: never
	lastHello time.Time
}

type grave struct {
	reason LossReason
	since  time.Time
	last   sighting // newest sign of life before
}

// disproved reports whether s, if it is true, shows that the member was buried in error or has come back. A run of
// the speaker that said goodbye does not come back.
func (g *grave) disproved(s sighting) bool {
	return s.Instance != g.last.Instance || g.reason != Left && s.Uptime >= g.last.Uptime+proofOfLife
}

func (p *peer) live() bool { return p.listed && p.grave == nil }

// left reports whether the peer went away on purpose.
func (p *peer) left() bool {
	return p.grave != nil && p.grave.reason == Left || !p.listed && p.profile.Leaving
}

// seed is an address that the API lists as a speaker's.
type seed struct {
	since     time.Time
	lastHello time.Time
	warned    bool
}

// roster is the table of known speakers. It is pure: it knows the time only from its callers.
type roster struct {
	self  string
	peers map[string]*peer
	seeds map[netip.AddrPort]*seed
}

func newRoster(self string) *roster {
	return &roster{self: self, peers: map[string]*peer{}, seeds: map[netip.AddrPort]*seed{}}
}

func (r *roster) peer(name string) *peer {
	p := r.peers[name]
	if p == nil {
		p = &peer{name: name}
		r.peers[name] = p
	}
	return p
}

// list records that memberlist counts name as alive. returned reports that it was known and away before: it may
// bring news from the other side of a partition. joined is false for a mere update.
func (r *roster) list(now time.Time, name string, addr netip.AddrPort, meta profile, joined bool) (returned bool) {
	p := r.peer(name)
	wasLive, known := p.live(), !p.lastLive.IsZero()
	p.addr = addr
	p.listed = true
	p.lastHeard = now
	p.adopt(meta)
	// memberlist lists a member anew only on its own word, spoken after it was thought dead. An update may be old
	// gossip unless it comes from another run of the speaker.
	if g := p.grave; g != nil && (meta.Instance != g.last.Instance || joined && g.reason != Left) {
		p.grave = nil
	}
	if p.live() {
		p.lastLive = now
		if !wasLive {
			p.liveSince = now
		}
	}
	return known && !wasLive && p.live()
}

// unlist records that memberlist gave name up.
func (r *roster) unlist(now time.Time, name string) LossReason {
	p := r.peer(name)
	if p.live() {
		p.lastLive = now
	}
	p.listed = false
	if p.profile.Leaving {
		return Left
	}
	return SpeakerGone
}

// adopt takes over metadata unless it is older than what is known of the same run.
func (p *peer) adopt(meta profile) {
	if meta.Instance != p.profile.Instance || meta.Revision >= p.profile.Revision {
		p.profile = meta
	}
	if p.seen.Instance != meta.Instance {
		p.seen = sighting{Name: p.name, Instance: meta.Instance}
	}
}

// hear records a message that came directly from its sender. strange reports that the sender lives but is not
// counted as a member, so that its state should be fetched and then raise be called.
func (r *roster) hear(now time.Time, from sighting, addr netip.AddrPort) (strange bool) {
	p := r.peer(from.Name)
	if p.grave != nil && !p.grave.disproved(from) {
		return false
	}
	if from.Instance != p.seen.Instance || from.Uptime > p.seen.Uptime {
		p.seen = from
	}
	if p.live() {
		return false
	}
	p.addr = addr
	p.lastHeard = now
	return true
}

// news records that another member saw this one. It reports whether that is later than all that is known here.
// Word that is as old as what is known proves nothing: among watchers that are starved, and pass it on late, it
// would keep a dead member alive for as long as it goes round.
func (r *roster) news(about sighting) bool {
	p := r.peers[about.Name]
	if p == nil || about.Instance != p.seen.Instance || about.Uptime <= p.seen.Uptime {
		return false
	}
	p.seen = about
	return true
}

// bury stops counting a member. It returns false if it is not counted anyway. Buried in error, because about was
// an earlier run or because it was only cut off for a moment, it rises with the next message that it sends.
func (r *roster) bury(now time.Time, about sighting, reason LossReason) bool {
	p := r.peers[about.Name]
	if p == nil || !p.live() || about.Name == r.self {
		return false
	}
	if p.seen.Instance == about.Instance {
		if reason != Left && p.seen.Uptime >= about.Uptime+proofOfLife {
			return false // old news
		}
		about.Uptime = max(about.Uptime, p.seen.Uptime)
	}
	p.lastLive = now
	p.grave = &grave{reason: reason, since: now, last: about}
	return true
}

// raise counts a member again that has proved to be alive. Unless memberlist lists it, it still has to wait for that.
func (r *roster) raise(now time.Time, name string) bool {
	p := r.peers[name]
	if p == nil || p.grave == nil {
		return false
	}
	p.grave = nil
	if p.listed {
		p.lastLive, p.liveSince = now, now
	}
	return p.listed
}

// returned takes another member's word that one has come back. It reports whether it counts again.
func (r *roster) returned(now time.Time, about sighting) bool {
	p := r.peers[about.Name]
	if p == nil || p.grave == nil || !p.grave.disproved(about) {
		return false
	}
	p.seen = about
	return r.raise(now, about.Name)
}

// outlived returns the members whose graves memberlist does not believe in.
func (r *roster) outlived(now time.Time) []string {
	var names []string
	for name, p := range r.peers {
		if p.listed && p.grave != nil && p.grave.reason != Left && now.Sub(p.grave.since) > graveLimit {
			names = append(names, name)
		}
	}
	return names
}

// powerless returns the names of those that lost power and have not been heard of since.
func (r *roster) powerless() []string {
	var names []string
	for name, p := range r.peers {
		if p.grave != nil && p.grave.reason == PowerLost {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (r *roster) live() []*peer {
	var live []*peer
	for _, p := range r.peers {
		if p.live() {
			live = append(live, p)
		}
	}
	slices.SortFunc(live, func(a, b *peer) int { return strings.Compare(a.name, b.name) })
	return live
}

// quorum reports whether more than half of the speakers known lately, which did not leave on purpose, are live.
// An address that the API lists counts as known too: a speaker that restarts alone has no memory of the others.
func (r *roster) quorum(now time.Time) bool {
	live, known := 0, 0
	addrs := map[netip.AddrPort]bool{}
	for _, p := range r.peers {
		addrs[p.addr] = true
		switch {
		case p.live():
			live++
			known++
		case !p.left() && !p.lastLive.IsZero() && now.Sub(p.lastLive) < rememberForQuorum:
			known++
		}
	}
	for addr, s := range r.seeds {
		if !addrs[addr] && now.Sub(s.since) < rememberForQuorum {
			known++
		}
	}
	return 2*live > known
}

// setSeeds replaces the addresses that the API lists.
func (r *roster) setSeeds(now time.Time, addrs []netip.AddrPort) {
	maps.DeleteFunc(r.seeds, func(addr netip.AddrPort, _ *seed) bool { return !slices.Contains(addrs, addr) })
	for _, addr := range addrs {
		if r.seeds[addr] == nil {
			r.seeds[addr] = &seed{since: now}
		}
	}
}

// seedsJoined reports whether every address that the API lists belongs to a live member.
func (r *roster) seedsJoined() bool {
	live := map[netip.AddrPort]bool{}
	for _, p := range r.live() {
		live[p.addr] = true
	}
	for addr := range r.seeds {
		if !live[addr] {
			return false
		}
	}
	return true
}

// greet returns whom to send a hello now: speakers that are known but not live, the longest waiting first. mine is
// asked for each whether it is this member's turn, among so many that miss the same one: if all members greeted a
// node without power, each with ARP requests, a large LAN would be full of them. greet also forgets the speakers
// that have been away too long.
func (r *roster) greet(now time.Time, mine func(among int) bool) []netip.AddrPort {
	type candidate struct {
		addr  netip.AddrPort
		last  *time.Time
		since time.Time
	}
	var due []candidate
	known := map[netip.AddrPort]bool{}
	for name, p := range r.peers {
		known[p.addr] = true
		if p.live() || name == r.self {
			continue
		}
		away := min(now.Sub(p.lastLive), now.Sub(p.lastHeard))
		if away > rememberForHello {
			delete(r.peers, name)
			continue
		}
		interval := helloInterval
		if p.left() || away > rememberForQuorum {
			interval = helloSlowInterval
		}
		if now.Sub(p.lastHello) >= interval {
			due = append(due, candidate{p.addr, &p.lastHello, p.lastLive})
		}
	}
	for addr, s := range r.seeds {
		interval := helloInterval
		if now.Sub(s.since) > rememberForQuorum {
			interval = helloSlowInterval
		}
		if !known[addr] && now.Sub(s.lastHello) >= interval {
			due = append(due, candidate{addr, &s.lastHello, now})
		}
	}
	slices.SortFunc(due, func(a, b candidate) int {
		return cmp.Or(a.last.Compare(*b.last), a.addr.Compare(b.addr))
	})
	var addrs []netip.AddrPort
	for _, c := range due {
		if len(addrs) == hellosAtOnce {
			break
		}
		*c.last = now
		if mine(r.liveBefore(c.since)) {
			addrs = append(addrs, c.addr)
		}
	}
	return addrs
}

// liveBefore counts the live members that already were live then. Those that returned later were on the other side
// of a partition, and may never have lost sight of the ones that are missing here.
func (r *roster) liveBefore(then time.Time) int {
	count := 0
	for _, p := range r.peers {
		if p.live() && !p.liveSince.After(then) {
			count++
		}
	}
	return count
}

// unanswered returns the addresses that the API has listed for longer than patience without a speaker there that
// was ever heard, each once.
func (r *roster) unanswered(now time.Time, patience time.Duration) []netip.AddrPort {
	known := map[netip.AddrPort]bool{}
	for _, p := range r.peers {
		known[p.addr] = true
	}
	var addrs []netip.AddrPort
	for addr, s := range r.seeds {
		if !known[addr] && !s.warned && now.Sub(s.since) > patience {
			s.warned = true
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
