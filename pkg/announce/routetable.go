package announce

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// RouteKey says whose contributions they are.
type RouteKey struct {
	Service string // namespace/name
	Addr    netip.Addr
}

// RouteTable merges the contributions of all Services into the node's routes. The routes depend on the contributions only, not on the
// order in which they came. It is not safe for concurrent use.
type RouteTable struct {
	held    map[RouteKey][]holding
	entries map[netip.Prefix]entry
	dirty   map[netip.Prefix]struct{}
	routes  []bgp.Route // as of the latest Routes; never written to again
	known   interned
}

// entry is a prefix, with what different contributions have in common kept once: ten thousand addresses in one aggregate are one share.
type entry []*share

// share stands for all contributions that differ in nothing but their bandwidth.
type share struct {
	prefix     netip.Prefix
	peers      []string
	attributes bgp.Attributes // Bandwidth is 0
	count      int
	bandwidth  uint64 // the sum
}

// holding is a key's part in a share.
type holding struct {
	share     *share
	bandwidth uint64
}

// NewRouteTable returns an empty table.
func NewRouteTable() *RouteTable {
	return &RouteTable{
		held:    map[RouteKey][]holding{},
		entries: map[netip.Prefix]entry{},
		dirty:   map[netip.Prefix]struct{}{},
		known:   newInterned(),
	}
}

// Set puts the contributions in the place of those that the key has; none removes the key. It takes as long as there are contributions,
// however large the table is.
func (t *RouteTable) Set(key RouteKey, contributions []Contribution) {
	old := t.held[key]
	if t.holds(old, contributions) {
		return
	}
	// What stays the same is added before it is removed, so that it does not come and go.
	var held []holding
	for i := range contributions {
		c := &contributions[i]
		h := holding{share: t.share(c), bandwidth: c.Attributes.Bandwidth}
		h.share.count++
		h.share.bandwidth += h.bandwidth
		if h.share.count == 1 || h.bandwidth > 0 {
			t.dirty[c.Prefix] = struct{}{}
		}
		held = append(held, h)
	}
	for _, h := range old {
		h.share.count--
		h.share.bandwidth -= h.bandwidth
		if h.share.count == 0 {
			if e := without(t.entries[h.share.prefix], h.share); len(e) > 0 {
				t.entries[h.share.prefix] = e
			} else {
				delete(t.entries, h.share.prefix)
			}
		}
		if h.share.count == 0 || h.bandwidth > 0 {
			t.dirty[h.share.prefix] = struct{}{}
		}
	}
	if len(held) == 0 {
		delete(t.held, key)
		return
	}
	t.held[key] = held
}

// holds tells whether the holdings are those of the contributions.
func (t *RouteTable) holds(held []holding, contributions []Contribution) bool {
	if len(held) != len(contributions) {
		return false
	}
	for i := range held {
		if c := &contributions[i]; held[i].bandwidth != c.Attributes.Bandwidth || !held[i].share.stands(c) {
			return false
		}
	}
	return true
}

// stands tells whether the contribution belongs to the share.
func (s *share) stands(c *Contribution) bool {
	attributes := c.Attributes
	attributes.Bandwidth = 0
	return s.prefix == c.Prefix && s.attributes.Equal(&attributes) && slices.Equal(s.peers, c.Peers)
}

// share returns the one that the contribution belongs to.
func (t *RouteTable) share(c *Contribution) *share {
	for _, s := range t.entries[c.Prefix] {
		if s.stands(c) {
			return s
		}
	}
	s := &share{prefix: c.Prefix, peers: c.Peers, attributes: c.Attributes}
	s.attributes.Bandwidth = 0
	t.entries[c.Prefix] = append(t.entries[c.Prefix], s)
	return s
}

// Len returns how many prefixes the routes are to.
func (t *RouteTable) Len() int { return len(t.entries) }

// Changed tells whether the routes may be others than those that Routes returned last.
func (t *RouteTable) Changed() bool { return len(t.dirty) > 0 }

// Routes returns the routes, sorted by prefix. Those that have not changed since the last call share their Paths with it, and equal
// Paths and Attributes are one in memory.
//
// What a peer is told about a prefix that several contributions have is what merge makes of them; those that carry the community
// GRACEFUL_SHUTDOWN count only when all do, because the prefix stays as long as one of them does.
func (t *RouteTable) Routes() []bgp.Route {
	if len(t.dirty) == 0 {
		return t.routes
	}
	routes := make([]bgp.Route, 0, len(t.entries))
	rest := t.routes
	for _, prefix := range slices.SortedFunc(maps.Keys(t.dirty), netip.Prefix.Compare) {
		i, found := slices.BinarySearchFunc(rest, prefix, func(r bgp.Route, p netip.Prefix) int { return r.Prefix.Compare(p) })
		routes = append(routes, rest[:i]...)
		if rest = rest[i:]; found {
			rest = rest[1:]
		}
		if e := t.entries[prefix]; e != nil {
			routes = append(routes, bgp.Route{Prefix: prefix, Paths: t.known.paths(e.paths())})
		}
	}
	t.routes = append(routes, rest...)
	clear(t.dirty)
	t.known.prune(t.routes)
	return t.routes
}

// paths returns what each peer is told, peers that are told the same together, ordered by their first peer.
func (e entry) paths() []bgp.Path {
	if len(e) == 1 {
		s := e[0]
		attributes := s.attributes
		attributes.Bandwidth = s.bandwidth
		return []bgp.Path{{Peers: s.peers, Attributes: &attributes}}
	}
	var peers []string
	for _, s := range e {
		peers = append(peers, s.peers...)
	}
	slices.Sort(peers)
	var paths []bgp.Path
	for _, peer := range slices.Compact(peers) {
		attributes := e.attributes(peer)
		i := slices.IndexFunc(paths, func(p bgp.Path) bool { return p.Attributes.Equal(attributes) })
		if i < 0 {
			i, paths = len(paths), append(paths, bgp.Path{Attributes: attributes})
		}
		paths[i].Peers = append(paths[i].Peers, peer)
	}
	return paths
}

// attributes returns what the peer is told.
func (e entry) attributes(peer string) *bgp.Attributes {
	var staying, leaving *bgp.Attributes
	for _, s := range e {
		if _, ok := slices.BinarySearch(s.peers, peer); !ok {
			continue
		}
		attributes := s.attributes
		attributes.Bandwidth = s.bandwidth
		into := &staying
		if _, shut := slices.BinarySearchFunc(attributes.Communities, bgp.GracefulShutdown, bgp.Community.Compare); shut {
			into = &leaving
		}
		if *into != nil {
			attributes = merge(**into, attributes)
		}
		*into = &attributes
	}
	if staying != nil {
		return staying
	}
	return leaving
}

// interned keeps one copy of equal Paths and Attributes.
type interned struct {
	byPaths      map[string][]bgp.Path
	byAttributes map[string]*bgp.Attributes
	limit        int // the number of byPaths at which those that nobody uses are forgotten
}

func newInterned() interned {
	const fewest = 64
	return interned{byPaths: map[string][]bgp.Path{}, byAttributes: map[string]*bgp.Attributes{}, limit: fewest}
}

// paths returns paths or their like.
func (n *interned) paths(paths []bgp.Path) []bgp.Path {
	key := pathsKey(paths)
	if known, ok := n.byPaths[string(key)]; ok {
		return known
	}
	for i := range paths {
		key := attributesKey(nil, paths[i].Attributes)
		known := n.byAttributes[string(key)]
		if known == nil {
			known = paths[i].Attributes
			n.byAttributes[string(key)] = known
		}
		if paths[i].Attributes != known { // what was returned before, and may be read elsewhere, is not written to
			paths[i].Attributes = known
		}
	}
	n.byPaths[string(key)] = paths
	return paths
}

// prune forgets what no route has, once that may be half of all.
func (n *interned) prune(routes []bgp.Route) {
	if len(n.byPaths) <= n.limit {
		return
	}
	*n = newInterned()
	for i := range routes {
		n.paths(routes[i].Paths)
	}
	n.limit = max(n.limit, 2*len(n.byPaths))
}

func pathsKey(paths []bgp.Path) []byte {
	var key []byte
	for i := range paths {
		key = binary.AppendUvarint(key, uint64(len(paths[i].Peers)))
		for _, peer := range paths[i].Peers {
			key = binary.AppendUvarint(key, uint64(len(peer)))
			key = append(key, peer...)
		}
		key = attributesKey(key, paths[i].Attributes)
	}
	return key
}

func attributesKey(key []byte, a *bgp.Attributes) []byte {
	med := uint64(0)
	if a.HasMED {
		med = 1 + uint64(a.MED)
	}
	for _, n := range []uint64{uint64(a.LocalPref), med, uint64(a.Prepend), a.Bandwidth, uint64(len(a.Communities))} {
		key = binary.AppendUvarint(key, n)
	}
	for _, c := range a.Communities {
		large := byte(0)
		if c.Large {
			large = 1
		}
		key = append(key, large)
		for _, n := range []uint32{c.A, c.B, c.C} {
			key = binary.BigEndian.AppendUint32(key, n)
		}
	}
	return key
}

func without(e entry, s *share) entry {
	return slices.DeleteFunc(e, func(other *share) bool { return other == s })
}
