package membership

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	losses     *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	registerer prometheus.Registerer
	registered []prometheus.Collector
}

// newMetrics registers the package's metrics; registerer may be nil. seeds are the other speakers that the API server lists.
func newMetrics(registerer prometheus.Registerer, live *atomic.Int64, seeds func() []netip.AddrPort) (*metrics, error) {
	m := &metrics{
		losses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "steelyard_membership_losses_total",
			Help: "Speakers that this one stopped counting as members, by reason.",
		}, []string{"reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "steelyard_membership_dropped_messages_total",
			Help: "Messages among speakers that were dropped because a queue was full.",
		}, []string{"queue"}),
		registerer: registerer,
	}
	for _, reason := range lossReasons {
		m.losses.WithLabelValues(string(reason))
	}
	if registerer == nil {
		return m, nil
	}
	members := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "steelyard_membership_members",
		Help: "Live speakers, this one included.",
	}, func() float64 { return float64(live.Load()) })
	listed := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "steelyard_membership_listed",
		Help: "Speaker pods that the API server lists, this one included.",
	}, func() float64 { return float64(len(seeds()) + 1) })
	for _, c := range []prometheus.Collector{members, listed, m.losses, m.dropped} {
		if err := registerer.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("registering the membership metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}
