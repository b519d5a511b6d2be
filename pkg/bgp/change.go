package bgp

import (
	"cmp"
	"net/netip"
	"slices"
)

// Change is the difference between two Desireds. What is gone is taken away before the rest is made so: a new peer may have the address
// of one that is gone.
type Change struct {
	RouterID   netip.Addr // always set
	ListenPort uint16     // always set
	// Restarting says that an engine which announced these routes before went without a word, so that peers may still keep them.
	Restarting bool
	Peers      []Peer // those that are new or differ, sorted by name
	GonePeers  []string
	Routes     []Route // those that are new or differ, whole, sorted by prefix
	GoneRoutes []netip.Prefix
}

// Diff returns what turns old into desired, which share memory with the result. Peers are to be sorted by name and routes by
// netip.Prefix.Compare. Routes that share their Paths or Attributes are compared by a glance at the pointers.
func Diff(old, desired Desired) Change {
	c := Change{RouterID: desired.RouterID, ListenPort: desired.ListenPort}
	merge(old.Peers, desired.Peers,
		func(a, b *Peer) int { return cmp.Compare(a.Name, b.Name) },
		func(a, b *Peer) bool { return *a == *b },
		func(p *Peer) { c.GonePeers = append(c.GonePeers, p.Name) },
		func(p *Peer) { c.Peers = append(c.Peers, *p) })
	merge(old.Routes, desired.Routes,
		func(a, b *Route) int {
			if a.Prefix == b.Prefix {
				return 0
			}
			return a.Prefix.Compare(b.Prefix)
		},
		func(a, b *Route) bool { return equalSlices(a.Paths, b.Paths, equalPaths) },
		func(r *Route) { c.GoneRoutes = append(c.GoneRoutes, r.Prefix) },
		func(r *Route) { c.Routes = append(c.Routes, *r) })
	return c
}

// merge walks two sorted lists at once.
func merge[T any](old, desired []T, compare func(a, b *T) int, equal func(a, b *T) bool, gone, differs func(*T)) {
	i, j := 0, 0
	for i < len(old) || j < len(desired) {
		order := 0
		switch {
		case i == len(old):
			order = 1
		case j == len(desired):
			order = -1
		default:
			order = compare(&old[i], &desired[j])
		}
		switch {
		case order < 0:
			gone(&old[i])
			i++
		case order > 0:
			differs(&desired[j])
			j++
		default:
			if !equal(&old[i], &desired[j]) {
				differs(&desired[j])
			}
			i++
			j++
		}
	}
}

func equalPaths(a, b Path) bool {
	return a.Attributes.Equal(b.Attributes) && equalSlices(a.Peers, b.Peers, func(a, b string) bool { return a == b })
}

// equalSlices is slices.EqualFunc that does not look into one and the same slice.
func equalSlices[T any](a, b []T, equal func(a, b T) bool) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, equal)
}

// Equal says whether a and b, either of which may be nil, tell a peer the same.
func (a *Attributes) Equal(b *Attributes) bool {
	if a == b {
		return true
	}
	return a != nil && b != nil && a.LocalPref == b.LocalPref && a.MED == b.MED && a.HasMED == b.HasMED && a.Prepend == b.Prepend &&
		a.Bandwidth == b.Bandwidth && slices.Equal(a.Communities, b.Communities)
}
