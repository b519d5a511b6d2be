package layer2

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests   *prometheus.CounterVec
	responses  *prometheus.CounterVec
	gratuitous *prometheus.CounterVec
	conflicts  *prometheus.CounterVec
}

const prefix = "steelyard_layer2_"

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{"ip"})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	return &metrics{
		requests:   counter("requests_received_total", "ARP requests and neighbour solicitations received for an announced address."),
		responses:  counter("responses_sent_total", "ARP replies and solicited neighbour advertisements sent for an announced address."),
		gratuitous: counter("gratuitous_sent_total", "Gratuitous ARP packets and unsolicited neighbour advertisements sent for an announced address."),
		conflicts:  counter("conflicts_total", "Packets of other hosts that claim an announced address as theirs."),
	}
}

// counters are the series of one address. Counting on after the address was forgotten does not bring its series back.
type counters struct {
	requests, responses, gratuitous, conflicts prometheus.Counter
}

func (m *metrics) of(addr netip.Addr) counters {
	ip := addr.String()
	return counters{m.requests.WithLabelValues(ip), m.responses.WithLabelValues(ip), m.gratuitous.WithLabelValues(ip), m.conflicts.WithLabelValues(ip)}
}

// forget deletes the series of an address.
func (m *metrics) forget(addr netip.Addr) {
	for _, c := range []*prometheus.CounterVec{m.requests, m.responses, m.gratuitous, m.conflicts} {
		c.DeleteLabelValues(addr.String())
	}
}
