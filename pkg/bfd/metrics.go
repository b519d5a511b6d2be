package bfd

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of MetalLB's FRR mode, by names of our own.
//
//	steelyard_bfd_                 metallb_bfd_
//	session_up                     session_up
//	control_packets_in_total       control_packet_input
//	control_packets_out_total      control_packet_output
//	up_events_total                session_up_events
//	down_events_total              session_down_events
//	dropped_packets_total{reason}  (none)
//	(none)                         echo_packet_input, echo_packet_output, zebra_notifications
//
// They are read from the sessions when somebody asks, so that a packet costs no look-up by labels.
type metrics struct {
	speaker *Speaker
	dropped *prometheus.CounterVec
}

const prefix = "steelyard_bfd_"

// A session's labels are what tells it apart from all others; local is empty unless it is configured.
var labels = []string{"peer", "local", "device", "multihop"}

var (
	upDesc    = prometheus.NewDesc(prefix+"session_up", "Whether the BFD session with the peer is up.", labels, nil)
	inDesc    = prometheus.NewDesc(prefix+"control_packets_in_total", "BFD control packets from the peer that were processed.", labels, nil)
	outDesc   = prometheus.NewDesc(prefix+"control_packets_out_total", "BFD control packets sent to the peer.", labels, nil)
	upsDesc   = prometheus.NewDesc(prefix+"up_events_total", "Times that the BFD session with the peer came up.", labels, nil)
	downsDesc = prometheus.NewDesc(prefix+"down_events_total", "Times that the BFD session with the peer ceased to be up.", labels, nil)
)

func newMetrics(s *Speaker, r prometheus.Registerer) *metrics {
	m := &metrics{speaker: s, dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "dropped_packets_total", Help: "Packets that came to BFD's ports and were not processed, by reason.",
	}, []string{"reason"})}
	for _, reason := range drops {
		m.dropped.WithLabelValues(string(reason))
	}
	if r != nil {
		r.MustRegister(m)
	}
	return m
}

func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, inDesc, outDesc, upsDesc, downsDesc} {
		ch <- d
	}
	m.dropped.Describe(ch)
}

func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.speaker.Statuses() {
		k := s.key()
		local := ""
		if k.local.IsValid() {
			local = k.local.String()
		}
		send := func(d *prometheus.Desc, kind prometheus.ValueType, value uint64) {
			ch <- prometheus.MustNewConstMetric(d, kind, float64(value), k.peer.String(), local, k.device, strconv.FormatBool(k.multihop))
		}
		up := uint64(0)
		if s.State == Up {
			up = 1
		}
		send(upDesc, prometheus.GaugeValue, up)
		send(inDesc, prometheus.CounterValue, s.PacketsIn)
		send(outDesc, prometheus.CounterValue, s.PacketsOut)
		send(upsDesc, prometheus.CounterValue, s.Ups)
		send(downsDesc, prometheus.CounterValue, s.Downs)
	}
	m.dropped.Collect(ch)
}
