package speaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// bgpMetrics makes the metrics of BGP sessions, and of what they tell, when they are asked for.
type bgpMetrics struct {
	engine  bgp.Engine
	routing *routing
}

const bgpPrefix = "steelyard_bgp_"

var (
	sessionUpDesc = prometheus.NewDesc(bgpPrefix+"session_up", "Whether the BGP session with the peer is established.", []string{"peer"}, nil)
	prefixesDesc  = prometheus.NewDesc(bgpPrefix+"announced_prefixes", "Prefixes that the peer is told.", []string{"peer"}, nil)
	messagesDesc  = prometheus.NewDesc(bgpPrefix+"messages_total", "BGP messages exchanged with the peer since the engine's start, by type.",
		[]string{"peer", "direction", "type"}, nil)
)

// Describe implements prometheus.Collector.
func (m bgpMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- sessionUpDesc
	ch <- prefixesDesc
	ch <- messagesDesc
}

// Collect implements prometheus.Collector.
func (m bgpMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, metric := range m.routing.collect() {
		ch <- metric
	}
	for _, s := range m.engine.Sessions() {
		up := 0.0
		if s.State == bgp.Established {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(sessionUpDesc, prometheus.GaugeValue, up, s.Peer)
		ch <- prometheus.MustNewConstMetric(prefixesDesc, prometheus.GaugeValue, float64(s.Announced), s.Peer)
		c := s.Counters
		for _, m := range []struct {
			kind           string
			sent, received uint64
		}{
			{"open", c.OpensSent, c.OpensReceived}, {"update", c.UpdatesSent, c.UpdatesReceived}, {"keepalive", c.KeepalivesSent, c.KeepalivesReceived},
			{"notification", c.NotificationsSent, c.NotificationsReceived}, {"route-refresh", c.RefreshesSent, c.RefreshesReceived},
			{"all", c.TotalSent, c.TotalReceived},
		} {
			ch <- prometheus.MustNewConstMetric(messagesDesc, prometheus.CounterValue, float64(m.sent), s.Peer, "sent", m.kind)
			ch <- prometheus.MustNewConstMetric(messagesDesc, prometheus.CounterValue, float64(m.received), s.Peer, "received", m.kind)
		}
	}
}

// collect returns a metric for each address that routers are told of, and each Service that has it.
func (r *routing) collect() []prometheus.Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	var metrics []prometheus.Metric
	for name, told := range r.routed {
		for _, a := range told.addrs {
			metrics = append(metrics, prometheus.MustNewConstMetric(announcedDesc, prometheus.GaugeValue, 1, name, "bgp", r.config.Node, a.String()))
		}
	}
	return metrics
}
