package unnumbered

import (
	"net/netip"
	"testing"
	"time"
)

func TestHearing(t *testing.T) {
	a, b := netip.MustParseAddr("fe80::a%eth0"), netip.MustParseAddr("fe80::b%eth0")
	type event struct {
		after    time.Duration // since the first
		from     netip.Addr    // invalid: nothing is heard
		lifetime time.Duration
		solicits bool
		want     netip.Addr
	}
	const s, m = time.Second, time.Minute
	tests := map[string][]event{
		"lifetime":                     {{0, a, 30 * s, false, a}, {29 * s, netip.Addr{}, 0, false, a}, {30 * s, netip.Addr{}, 0, false, netip.Addr{}}},
		"a lifetime begins anew":       {{0, a, 30 * s, false, a}, {20 * s, a, 30 * s, false, a}, {49 * s, netip.Addr{}, 0, false, a}, {50 * s, netip.Addr{}, 0, false, netip.Addr{}}},
		"no lifetime":                  {{0, a, 0, false, a}, {29 * m, netip.Addr{}, 0, false, a}, {30 * m, netip.Addr{}, 0, false, netip.Addr{}}},
		"two routers":                  {{0, a, 0, false, a}, {1 * s, b, 0, true, a}, {2 * s, a, 0, false, a}, {11 * s, b, 0, false, a}, {12 * s, a, 0, false, a}, {21 * s, b, 0, false, a}},
		"another address":              {{0, a, 0, false, a}, {10 * s, b, 0, true, a}, {11 * s, b, 0, false, a}, {20 * s, b, 0, false, b}, {30 * s, b, 0, false, b}},
		"another address, and back":    {{0, a, 0, false, a}, {10 * s, b, 0, true, a}, {20 * s, b, 0, false, b}, {30 * s, a, 0, true, b}, {40 * s, a, 0, false, a}},
		"one of two routers goes":      {{0, a, 0, false, a}, {1 * s, b, 0, true, a}, {2 * s, a, 0, false, a}, {11 * s, b, 0, false, a}, {31 * s, b, 0, true, a}, {41 * s, b, 0, false, b}},
		"one of two goes, by lifetime": {{0, a, 0, false, a}, {1 * s, b, 0, true, a}, {2 * s, a, 30 * s, false, a}, {11 * s, b, 0, false, a}, {32 * s, b, 0, false, b}},
	}
	for name, events := range tests {
		start := time.Now()
		var h hearing
		for i, e := range events {
			now := start.Add(e.after)
			h.at(now)
			if e.from.IsValid() {
				if got := h.advertisement(now, e.from, e.lifetime); got != e.solicits {
					t.Errorf("%s, event %d: solicits: %v", name, i, got)
				}
			}
			if got := h.at(now); got != e.want {
				t.Errorf("%s, event %d: the router is %v, want %v", name, i, got, e.want)
			}
		}
	}
}
