package speaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

type metrics struct {
	taken     *prometheus.CounterVec
	withdrawn prometheus.Counter
	rivalries prometheus.Counter
}

func newMetrics(s *Speaker, r prometheus.Registerer) *metrics {
	m := &metrics{
		taken: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "steelyard_addresses_taken_total",
			Help: "Addresses that this node was elected to announce and had not announced before, by the rule that decided."}, []string{"reason"}),
		withdrawn: prometheus.NewCounter(prometheus.CounterOpts{Name: "steelyard_addresses_withdrawn_total",
			Help: "Addresses that this node has stopped announcing."}),
		rivalries: prometheus.NewCounter(prometheus.CounterOpts{Name: "steelyard_rival_claims_total",
			Help: "Addresses that another speaker claimed at the same time, and that this node kept."}),
	}
	if r != nil {
		r.MustRegister(m.taken, m.withdrawn, m.rivalries, &announced{s})
	}
	return m
}

// announced makes its metrics when they are asked for: with thousands of addresses they are larger than all else that the speaker keeps.
type announced struct{ *Speaker }

var (
	announcedDesc = prometheus.NewDesc("steelyard_announced", "1 for each address that this node announces, and each Service that has it.",
		[]string{"service", "protocol", "node", "ip"}, nil)
	addressesDesc  = prometheus.NewDesc("steelyard_announced_addresses", "Addresses that this node announces.", nil, nil)
	probingDesc    = prometheus.NewDesc("steelyard_probing_addresses", "Fresh addresses that this node is about to announce.", nil, nil)
	conflictedDesc = prometheus.NewDesc("steelyard_conflicting_addresses", "Addresses that this node does not announce, because a stranger has them.", nil, nil)
	conflictDesc   = prometheus.NewDesc("steelyard_address_conflict", "1 for each address that this node does not announce, because a stranger has it.",
		[]string{"ip"}, nil)
	takeoversDesc = prometheus.NewDesc("steelyard_address_takeovers_total",
		"Times that this node was elected to announce the address and had not announced it before, for each address that a Service has.", []string{"ip"}, nil)
	unownedDesc = prometheus.NewDesc("steelyard_unowned_addresses",
		"Addresses that nobody may announce, by any protocol, by reason. All speakers count the same ones.", []string{"reason"}, nil)
	quorumDesc = prometheus.NewDesc("steelyard_membership_quorum", "Whether this speaker sees more than half of the speakers.", nil, nil)
)

// ownerless are the reasons why nobody may announce an address. Each has a series from the start, so that a rise can be seen.
var ownerless = []announce.Reason{announce.NoAdvertisement, announce.NoServingEndpoint, announce.SharedWithServiceSelector, announce.NoEligibleNode}

func (a *announced) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{announcedDesc, addressesDesc, probingDesc, conflictedDesc, conflictDesc, takeoversDesc, unownedDesc, quorumDesc} {
		ch <- d
	}
}

func (a *announced) Collect(ch chan<- prometheus.Metric) {
	for _, m := range a.collect() {
		ch <- m
	}
}

func (a *announced) collect() []prometheus.Metric {
	a.mu.Lock()
	defer a.mu.Unlock()
	var metrics []prometheus.Metric
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics = append(metrics, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...))
	}
	var announced, probing, conflicted float64
	for addr, h := range a.held {
		switch {
		case h.conflict != nil:
			conflicted++
			gauge(conflictDesc, 1, addr.String())
		case !h.answers():
			probing++
		default:
			announced++
			for _, svc := range a.byAddr[addr] {
				gauge(announcedDesc, 1, svc.Name, "layer2", a.config.Node, addr.String())
			}
		}
	}
	for addr, n := range a.takeovers {
		metrics = append(metrics, prometheus.MustNewConstMetric(takeoversDesc, prometheus.CounterValue, float64(n), addr.String()))
	}
	gauge(addressesDesc, announced)
	gauge(probingDesc, probing)
	gauge(conflictedDesc, conflicted)
	counts := map[announce.Reason]float64{}
	for _, is := range a.unowned {
		counts[is.reason]++
	}
	for _, reason := range ownerless {
		gauge(unownedDesc, counts[reason], string(reason))
	}
	quorum := 0.0
	if a.view.quorum {
		quorum = 1
	}
	gauge(quorumDesc, quorum)
	return metrics
}
