package bfd

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		s := New(Config{Log: logTo(t), Registerer: registry})
		s.Sync([]Session{
			{Peer: router}, {Peer: router, Multihop: true}, {Peer: router, Local: own}, {Peer: netip.MustParseAddr("fe80::1%eth0")}, {Peer: netip.MustParseAddr("fe80::1%eth1")},
		})
		got := values(t, registry)
		for _, series := range []string{
			`device="" local="" multihop="false" peer="192.0.2.1"`, `device="" local="" multihop="true" peer="192.0.2.1"`,
			`device="" local="192.0.2.11" multihop="false" peer="192.0.2.1"`,
			`device="eth0" local="" multihop="false" peer="fe80::1"`, `device="eth1" local="" multihop="false" peer="fe80::1"`,
		} {
			for _, name := range []string{"session_up", "control_packets_in_total", "control_packets_out_total", "up_events_total", "down_events_total"} {
				if n, ok := got[name+" "+series]; !ok || n != 0 {
					t.Errorf("%s of %s is %v, there: %v", name, series, n, ok)
				}
			}
		}
		if want := 5*5 + len(drops); len(got) != want {
			t.Errorf("there are %d series instead of %d: %v", len(got), want, got)
		}

		b := at(t, Up)
		registry = prometheus.NewPedanticRegistry()
		registry.MustRegister(b.metrics)
		got = values(t, registry)
		const series = ` device="" local="" multihop="false" peer="192.0.2.1"`
		if got["session_up"+series] != 1 || got["control_packets_in_total"+series] != 2 || got["control_packets_out_total"+series] != 3 || got["up_events_total"+series] != 1 {
			t.Errorf("of a session that is up: %v", got)
		}
	})
}

// values returns the values of all series by name, without prefix, and labels.
func values(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), prefix)
			for _, l := range m.GetLabel() {
				name += fmt.Sprintf(" %s=%q", l.GetName(), l.GetValue())
			}
			all[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}
