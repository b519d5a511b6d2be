package membership

import (
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// The API lists this speaker too, and with two families each speaker twice.
func TestListedSpeakersAreCountedOnce(t *testing.T) {
	l := &List{config: Config{Bind: netip.MustParseAddr("192.0.2.1"), Port: 7946, Peers: func() []netip.Addr {
		return []netip.Addr{
			netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"),
			netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::3"),
		}
	}}}
	l.live.Store(2)
	registry := prometheus.NewRegistry()
	if _, err := newMetrics(registry, &l.live, l.seeds); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"steelyard_membership_members": 2, "steelyard_membership_listed": 3}
	for _, f := range families {
		if value, ok := want[f.GetName()]; ok {
			if got := f.Metric[0].Gauge.GetValue(); got != value {
				t.Errorf("%s is %v, want %v", f.GetName(), got, value)
			}
			delete(want, f.GetName())
		}
	}
	if len(want) > 0 {
		t.Errorf("there is no %v", want)
	}
}
