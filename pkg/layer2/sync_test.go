package layer2

import (
	"net/netip"
	"testing"
)

// A burst's turns lie in a queue; whether they are still wanted is found out when they are due.
func TestOutdatedTurns(t *testing.T) {
	for _, c := range []struct {
		name string
		then []Announcement // what is synced while the burst is under way
		want bool
	}{
		{"still the same", []Announcement{{Addr: vip4, Burst: 1}}, true},
		{"another address besides", []Announcement{{Addr: vip4, Burst: 1}, {Addr: fence4, Burst: 1}}, true},
		{"superseded", []Announcement{{Addr: vip4, Burst: 2}}, false},
		{"withdrawn", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New(Config{})
			a.Sync([]Announcement{{Addr: vip4, Burst: 1}})
			begun := a.bursts.queues[0][0]
			a.Sync(c.then)
			if got := a.announce(begun); got != c.want {
				t.Errorf("the burst goes on: %v, want %v", got, c.want)
			}
		})
	}
	t.Run("withdrawn and announced again", func(t *testing.T) {
		a := New(Config{})
		a.Sync([]Announcement{{Addr: vip4, Burst: 1}})
		begun := a.bursts.queues[0][0]
		a.Sync(nil)
		a.Sync([]Announcement{{Addr: vip4, Burst: 1}})
		if a.announce(begun) {
			t.Error("the burst of the first announcement goes on")
		}
		if again := a.bursts.queues[0][1]; !a.announce(again) {
			t.Error("the burst of the second announcement does not go on")
		}
	})
}

func TestSyncIsIdempotent(t *testing.T) {
	a := New(Config{})
	for range 3 {
		a.Sync([]Announcement{{Addr: vip4, Burst: 5}, {Addr: netip.AddrFrom16(fence4.As16()), Burst: 0}})
	}
	if n := len(a.bursts.queues[0]); n != 1 {
		t.Errorf("%d bursts, want 1", n)
	}
	if n := len(a.vips); n != 2 || a.vips[fence4] == nil {
		t.Errorf("%d addresses: %v", n, a.vips)
	}
}

func TestStatusBeforeTheInterfacesAreKnown(t *testing.T) {
	a := New(Config{})
	s := a.Sync([]Announcement{{Addr: vip4}})
	if err, ok := s[0].Err.(*Error); len(s) != 1 || s[0].Addr != vip4 || !ok || err.Reason != ReasonNoInterface {
		t.Errorf("statuses %+v", s)
	}
	if _, err := a.Probe(t.Context(), vip4, nil, nil); err == nil {
		t.Error("probing without interfaces finds the address free")
	}
}
