package membership

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func nodeNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("node-%d", i+1)
	}
	return names
}

func TestRingIsMutual(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 300} {
		names := nodeNames(n)
		shuffled := slices.Clone(names)
		rand.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		r := newRing(names)
		if !slices.Equal(r, newRing(shuffled)) {
			t.Fatalf("%d members: the ring depends on the order of the names", n)
		}
		want := min(n-1, watchersPerMember)
		for _, name := range names {
			watchers := r.watchers(name)
			if len(watchers) != want || len(r.watched(name)) != want {
				t.Errorf("%d members: %s is watched by %v and watches %v, want %d each", n, name, watchers, r.watched(name), want)
			}
			for i, w := range watchers {
				if w == name || slices.Contains(watchers[:i], w) || !slices.Contains(r.watched(w), name) {
					t.Errorf("%d members: %s is watched by %v, but %s watches %v", n, name, watchers, w, r.watched(w))
				}
			}
		}
	}
}

func TestRingOfOthers(t *testing.T) {
	names := nodeNames(20)
	full := newRing(names)
	for _, name := range names {
		without := newRing(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name }))
		if got, want := without.watchers(name), full.watchers(name); !slices.Equal(got, want) {
			t.Errorf("%s away: its watchers are %v, were %v", name, got, want)
		}
	}
	if got := newRing([]string{"only"}).watchers("other"); !slices.Equal(got, []string{"only"}) {
		t.Errorf("the only member has to watch for all others, got %v", got)
	}
	if got := newRing(nil).watchers("other"); len(got) != 0 {
		t.Errorf("an empty ring watches nobody, got %v", got)
	}
}
