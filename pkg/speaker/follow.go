package speaker

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
)

// sight is who is there, as of the latest look.
type sight struct {
	stale  bool
	quorum bool
	first  bool            // this node is the first by name of the live members: it does what one has to do for all
	live   map[string]bool // the live members
	nodes  []announce.Node // live members with a Node object, sorted by name
	all    []announce.Node // all with a Node object, sorted by name
}

// tells: this node tells users that nobody may announce a Service. A minority does not know what the others may do.
func (v *sight) tells() bool { return v.first && v.quorum }

func (v *sight) node(name string) *announce.Node {
	i := slices.IndexFunc(v.nodes, func(n announce.Node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return &v.nodes[i]
}

func usable(n *announce.Node) bool {
	return n != nil && n.Live && !n.Leaving && !n.Excluded && !n.NetworkUnavailable && (n.Interfaces == nil || len(n.Interfaces) > 0)
}

// follow looks who is there, and marks what the difference may change, nothing else: what a node held that is no longer usable, and
// what a node may take that is now, or that has other labels or interfaces.
func (s *Speaker) follow(now time.Time) {
	old := s.view
	s.view = s.look(now)
	s.view.quorum = s.steadyQuorum(s.members.Quorum(), now)
	s.nodesChanged = false
	if down := s.members.PowerLost(); s.config.Dataplane != nil && !slices.Equal(down, s.down) {
		s.down = down
		s.config.Dataplane.SetDown(down)
	}

	for name := range s.view.live {
		if !old.live[name] {
			if t, lost := s.lostAt[name]; lost && now.Sub(t) >= burial && s.config.Shown != nil {
				s.config.Shown.Recheck() // it may have lost this node, too
			}
			delete(s.lostAt, name)
			s.reunited = now
		}
	}
	gone, come, changed := map[string]bool{}, false, false
	for i := range old.nodes {
		before := &old.nodes[i]
		after := s.view.node(before.Name)
		if usable(before) && !usable(after) {
			gone[before.Name] = true
		}
		if usable(after) && (!maps.Equal(before.Labels, after.Labels) || !slices.Equal(before.Interfaces, after.Interfaces)) {
			changed = true
		}
	}
	for i := range s.view.nodes {
		after := &s.view.nodes[i]
		come = come || usable(after) && !usable(old.node(after.Name))
	}
	for name := range old.live {
		if !s.view.live[name] {
			gone[name] = true
			s.lostAt[name] = now
		}
	}
	moved := s.moved(old.nodes)
	begins := s.view.tells() && !old.tells()
	for _, svc := range s.services {
		if come && svc.restless || changed && svc.choosy || slices.ContainsFunc(svc.witnesses, func(n string) bool { return moved[n] }) || begins && svc.Complaint != "" {
			s.dirty[svc.Name] = svc
		}
	}
	if len(moved) > 0 || begins {
		for a := range s.unowned {
			s.touchAddr(a)
		}
	}
	if len(gone) > 0 {
		for c := range s.replica.claims.All() {
			if gone[c.Owner] {
				s.touchAddr(c.Addr)
			}
		}
	}
	for a, h := range s.held {
		// A claim that lost to another's waits for that other to live, and one without quorum for the quorum.
		if s.replica.get(a) != h.claim || s.view.quorum && !h.claim.Quorum {
			s.touchAddr(a)
		}
	}
	if old.quorum && !s.view.quorum {
		s.doubt(now)
	}
}

// moved returns the nodes that may announce by BGP what they may not have before, or the other way round.
func (s *Speaker) moved(before []announce.Node) map[string]bool {
	was := sight{nodes: before}
	moved := map[string]bool{}
	for i := range before {
		if s.view.node(before[i].Name) == nil {
			moved[before[i].Name] = true
		}
	}
	for i := range s.view.nodes {
		n := &s.view.nodes[i]
		o := was.node(n.Name)
		if o == nil || o.Leaving != n.Leaving || o.Excluded != n.Excluded || o.NetworkUnavailable != n.NetworkUnavailable || !maps.Equal(o.Labels, n.Labels) {
			moved[n.Name] = true
		}
	}
	return moved
}

// steadyQuorum tells whether the speaker has been among the majority for a while. One that comes back from the other side of a partition
// is among it at once, but what it claimed there was claimed by a minority, until the majority has had its say.
func (s *Speaker) steadyQuorum(quorum bool, now time.Time) bool {
	switch {
	case !quorum:
		s.quorumAt = time.Time{}
	case s.quorumAt.IsZero():
		s.quorumAt = now.Add(steady)
	}
	return quorum && !now.Before(s.quorumAt)
}

// mayReturn tells whether the owner of a claim, who is not live, may turn up any moment, and until when: as a partition heals, or this
// speaker starts, the others are met one after the other, and the claims of those that follow are heard of before them.
func (s *Speaker) mayReturn(a netip.Addr, owner string, now time.Time) (time.Time, bool) {
	if owner == "" || s.view.live[owner] {
		return time.Time{}, false
	}
	until := s.heard[a]
	if !s.lostAt[owner].After(s.reunited) {
		until = later(until, s.reunited)
	}
	until = until.Add(reunion)
	return until, now.Before(until)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// doubt takes back the quorum of the claims that were made shortly before it was lost: a speaker that is cut off loses the others one
// after the other, and at first still seems to be among the majority.
func (s *Speaker) doubt(now time.Time) {
	for a, h := range s.held {
		if h.claim.Quorum && s.replica.get(a) == h.claim && now.Sub(h.taken) < hindsight {
			s.claim(h, h.claim, h.claim.Probing)
		}
	}
}

func (s *Speaker) look(now time.Time) sight {
	v := sight{first: true, live: map[string]bool{}}
	members := s.members.Members()
	s.met = s.met || len(members) > 1
	for _, m := range members {
		v.live[m.Name] = true
		v.first = v.first && m.Name >= s.config.Node
		for _, mac := range m.MACs {
			s.macs.add(mac)
		}
		n := s.nodes[m.Name]
		if n.Name == "" {
			continue
		}
		node := announce.Node{
			Name: m.Name, Labels: n.Labels, Excluded: n.Excluded, NetworkUnavailable: n.NetworkUnavailable,
			Live: true, Leaving: m.Leaving, Interfaces: m.Interfaces,
		}
		switch {
		case m.Name == s.config.Node:
			node.Leaving = s.leaving
			node.Interfaces = s.ownInterfaces(len(members) == 1, now)
		case len(m.MACs) > 0 && node.Interfaces == nil:
			// It has told about itself, and it has no interface. Without MACs it has yet to tell.
			node.Interfaces = []string{}
		}
		v.nodes = append(v.nodes, node)
	}
	v.all = slices.Clone(v.nodes)
	for name := range s.nodes {
		if !v.live[name] {
			v.all = append(v.all, announce.Node{Name: name})
		}
	}
	slices.SortFunc(v.all, func(a, b announce.Node) int { return strings.Compare(a.Name, b.Name) })
	return v
}

// ownInterfaces returns the interfaces that this node may announce on. After all of them were down it has been cut off, and what it knows
// of the others is old: until it meets them again, or settles that it is alone, it counts as still cut off. Otherwise it would come
// back with a loud claim to everything.
func (s *Speaker) ownInterfaces(alone bool, now time.Time) []string {
	names := []string{}
	for _, i := range s.config.Layer2.Interfaces() {
		names = append(names, i.Name)
	}
	switch {
	case len(names) == 0:
		s.cutOff, s.aloneAt = true, time.Time{}
	case !s.cutOff:
	case !alone || !s.met:
		s.cutOff = false
	case s.aloneAt.IsZero():
		s.aloneAt = now.Add(reunion)
		return []string{}
	case now.Before(s.aloneAt):
		return []string{}
	default:
		s.cutOff = false
	}
	return names
}

// macs are the MAC addresses of all speakers that are or were members: what answers from one of them is no stranger.
type macs struct {
	mu  sync.RWMutex
	all map[string]bool
	// mine are this node's, also of interfaces that are away now: members tell by them a speaker without interfaces from one
	// that has not told about itself.
	mine []net.HardwareAddr
}

func (m *macs) add(mac net.HardwareAddr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]bool{}
	}
	m.all[string(mac)] = true
}

func (m *macs) known(mac net.HardwareAddr) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.all[string(mac)]
}

func (m *macs) own(interfaces []layer2.Interface) []net.HardwareAddr {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range interfaces {
		if !slices.ContainsFunc(m.mine, func(mac net.HardwareAddr) bool { return slices.Equal(mac, i.MAC) }) {
			m.mine = append(m.mine, i.MAC)
		}
	}
	return m.mine
}
