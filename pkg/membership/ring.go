package membership

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// watchersPerMember bounds the heartbeats: a member sends to this many others, however large the cluster is.
const watchersPerMember = 3

// ring is the order in which members watch each other. Every member derives the same ring from the same names,
// and the hash keeps the machines of one rack, which tend to have names in sequence and to fail together, from
// being each other's only watchers.
type ring []position

type position struct {
	hash uint64
	name string
}

func positionOf(name string) position {
	h := fnv.New64a()
	h.Write([]byte(name))
	return position{mix(h.Sum64()), name}
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.hash, q.hash), cmp.Compare(p.name, q.name))
}

// mix spreads FNV's result: names that differ only in their last character have neighbouring FNV hashes.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h
}

func newRing(names []string) ring {
	r := make(ring, len(names))
	for i, name := range names {
		r[i] = positionOf(name)
	}
	slices.SortFunc(r, position.compare)
	return r
}

// watchers returns who watches name: those that follow its place in the ring, whether it is in the ring or not.
func (r ring) watchers(name string) []string {
	at, in := slices.BinarySearchFunc(r, positionOf(name), position.compare)
	if in {
		return r.walk(at, 1, len(r)-1)
	}
	return r.walk(at-1, 1, len(r))
}

// watched returns whom name, which is in the ring, watches: those that precede it.
func (r ring) watched(name string) []string {
	at, _ := slices.BinarySearchFunc(r, positionOf(name), position.compare)
	return r.walk(at, -1, len(r)-1)
}

// walk returns the names after place at, in steps, of which the ring has others.
func (r ring) walk(at, step, others int) []string {
	n := min(watchersPerMember, others)
	names := make([]string, 0, max(n, 0))
	for i := 1; i <= n; i++ {
		names = append(names, r[(at+step*i+len(r)*watchersPerMember)%len(r)].name)
	}
	return names
}
