package engine

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// simpleGate says what gate has to, at the cost of looking at everything.
type simpleGate struct {
	has     map[string][]netip.Addr
	applied map[string]map[netip.Addr]bool
	batch   map[string][]netip.Addr // nil while there is no sync
}

func (s *simpleGate) carries(a netip.Addr) bool {
	known := false
	for service, addrs := range s.has {
		if slices.Contains(addrs, a) {
			known = true
			if !s.applied[service][a] {
				return false
			}
		}
	}
	return known
}

// Whatever happens in whatever order, an address is carried only if all that have it are in the kernel, and it is carried once nothing happens
// any more and a sync succeeds.
func TestGateAgreesWithASimpleOne(t *testing.T) {
	services, addrs := []string{"a", "b", "c"}, []netip.Addr{addr("198.51.100.1"), addr("198.51.100.2"), addr("2001:db8::1")}
	rapid.Check(t, func(t *rapid.T) {
		g := newGate()
		s := simpleGate{has: map[string][]netip.Addr{}, applied: map[string]map[netip.Addr]bool{}}
		again := map[string]bool{} // the addresses have changed since the sync began, and some are not in the kernel
		syncing := false
		same := func() {
			for _, a := range addrs {
				if got, want := g.carries(a), s.carries(a); got != want {
					t.Fatalf("carries(%s): got %t, want %t", a, got, want)
				}
			}
		}
		end := func(ok bool, changed []string) {
			if ok {
				g.succeeded()
				for service, taken := range s.batch {
					for _, a := range taken {
						if !again[service] && slices.Contains(s.has[service], a) {
							s.applied[service][a] = true
						}
					}
				}
			} else {
				g.failed(changed)
				for _, service := range changed {
					s.applied[service] = map[netip.Addr]bool{}
				}
			}
			syncing, s.batch = false, nil
		}
		begin := func() {
			g.take()
			syncing, s.batch = true, map[string][]netip.Addr{}
			clear(again)
			for service, has := range s.has {
				s.batch[service] = slices.Clone(has)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				service := rapid.SampledFrom(services).Draw(t, "service")
				want := rapid.SliceOfDistinct(rapid.SampledFrom(addrs), func(a netip.Addr) netip.Addr { return a }).Draw(t, "addresses")
				g.set(service, want)
				if slices.Equal(want, s.has[service]) {
					return
				}
				applied := map[netip.Addr]bool{}
				again[service] = false
				for _, a := range want {
					applied[a] = s.applied[service][a]
					again[service] = again[service] || !applied[a]
				}
				s.has[service], s.applied[service] = want, applied
			},
			"begin": func(t *rapid.T) {
				if !syncing {
					begin()
				}
			},
			"end": func(t *rapid.T) {
				if syncing {
					end(rapid.Bool().Draw(t, "success"), rapid.SliceOfDistinct(rapid.SampledFrom(services), func(s string) string { return s }).Draw(t, "changed"))
				}
			},
			"": func(*rapid.T) { same() },
		})
		if syncing {
			end(false, nil)
		}
		begin()
		end(true, nil)
		same()
		for service, has := range s.has {
			for _, a := range has {
				if !g.carries(a) {
					t.Fatalf("%s of %s is never carried", a, service)
				}
			}
		}
		if len(g.fresh) > 0 {
			t.Fatalf("left over: %v", g.fresh)
		}
	})
}
