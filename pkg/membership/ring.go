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
type ring []string

func newRing(names []string) ring {
	type position struct {
		hash uint64
		name string
	}
	positions := make([]position, 0, len(names))
	for _, name := range names {
		h := fnv.New64a()
		h.Write([]byte(name))
		positions = append(positions, position{mix(h.Sum64()), name})
	}
	slices.SortFunc(positions, func(a, b position) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.name, b.name))
	})
	r := make(ring, len(positions))
	for i, p := range positions {
		r[i] = p.name
	}
	return r
}

// mix spreads FNV's result: names that differ only in their last character have neighbouring FNV hashes.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h
}

// watchers returns who watches name: those that follow it in the ring.
func (r ring) watchers(name string) []string { return r.neighbours(name, 1) }

// watched returns whom name watches: those that precede it.
func (r ring) watched(name string) []string { return r.neighbours(name, -1) }

func (r ring) neighbours(name string, step int) []string {
	at := slices.Index(r, name)
	if at < 0 {
		return nil
	}
	n := min(watchersPerMember, len(r)-1)
	names := make([]string, 0, n)
	for i := 1; i <= n; i++ {
		names = append(names, r[((at+step*i)%len(r)+len(r))%len(r)])
	}
	return names
}
