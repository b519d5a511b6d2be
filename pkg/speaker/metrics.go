package speaker

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	members   prometheus.Gauge
	taken     *prometheus.CounterVec
	withdrawn prometheus.Counter
	rivalries prometheus.Counter
}

func newMetrics(s *Speaker, r prometheus.Registerer) *metrics {
	const namespace, subsystem = "steelyard", "speaker"
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	m := &metrics{
		members: prometheus.NewGauge(prometheus.GaugeOpts(opts("members", "Live speakers, this one included."))),
		taken: prometheus.NewCounterVec(prometheus.CounterOpts(opts("addresses_taken_total",
			"Addresses that this node was elected to announce and had not announced before, by the rule that decided.")), []string{"reason"}),
		withdrawn: prometheus.NewCounter(prometheus.CounterOpts(opts("addresses_withdrawn_total",
			"Addresses that this node has stopped announcing."))),
		rivalries: prometheus.NewCounter(prometheus.CounterOpts(opts("rival_claims_total",
			"Addresses that another speaker claimed at the same time, and that this node kept."))),
	}
	if r != nil {
		r.MustRegister(m.members, m.taken, m.withdrawn, m.rivalries, &announced{s})
	}
	return m
}

// announced makes its metrics when they are asked for: with thousands of addresses they are larger than all else that the speaker keeps.
type announced struct{ *Speaker }

var (
	announcedDesc = prometheus.NewDesc("steelyard_speaker_announced", "Addresses that this node announces, by Service.",
		[]string{"service", "protocol", "node", "ip"}, nil)
	addressesDesc = prometheus.NewDesc("steelyard_speaker_addresses", "Addresses that this node is responsible for, by what it does for them.",
		[]string{"state"}, nil)
)

func (a *announced) Describe(ch chan<- *prometheus.Desc) {
	ch <- announcedDesc
	ch <- addressesDesc
}

func (a *announced) Collect(ch chan<- prometheus.Metric) {
	var all []prometheus.Metric
	states := map[string]float64{"announced": 0, "probing": 0, "conflict": 0}
	a.mu.Lock()
	for addr, h := range a.held {
		switch {
		case h.conflict != nil:
			states["conflict"]++
		case !h.answers():
			states["probing"]++
		default:
			states["announced"]++
			for name := range a.byAddr[addr] {
				all = append(all, prometheus.MustNewConstMetric(announcedDesc, prometheus.GaugeValue, 1, name, "layer2", a.config.Node, addr.String()))
			}
		}
	}
	a.mu.Unlock()
	for state, n := range states {
		all = append(all, prometheus.MustNewConstMetric(addressesDesc, prometheus.GaugeValue, n, state))
	}
	for _, m := range all {
		ch <- m
	}
}
