package engine

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of kube-proxy, by names of our own: two programs on one node must not count as one.
//
//	steelyard_dataplane_                     kubeproxy_
//	sync_duration_seconds{kind}              sync_full_, sync_partial_proxy_rules_duration_seconds (their sum: sync_proxy_rules_duration_seconds)
//	sync_failures_total{kind}                sync_proxy_rules_iptables_restore_failures_total, ..._nftables_sync_failures_total
//	sync_last_timestamp_seconds              sync_proxy_rules_last_timestamp_seconds
//	oldest_pending_timestamp_seconds         sync_proxy_rules_last_queued_timestamp_seconds
//	changes_total{kind}                      sync_proxy_rules_service_changes_total, ..._endpoint_changes_total
//	changes_pending                          sync_proxy_rules_service_changes_pending, ..._endpoint_changes_pending
//	network_programming_duration_seconds     network_programming_duration_seconds
//	services, endpoints                      (none)
//	services_without_local_endpoints{traffic_policy}  sync_proxy_rules_no_local_endpoints_total{traffic_policy}
//	repairs_total                            (none)
//	conntrack_duration_seconds               conntrack_reconciler_sync_duration_seconds
//	conntrack_deleted_entries_total          conntrack_reconciler_deleted_entries_total
//	conntrack_failures_total                 (none)
//	healthz_total{code}, livez_total{code}   proxy_healthz_total{code}, proxy_livez_total{code}
type metrics struct {
	syncs       *prometheus.HistogramVec
	failures    *prometheus.CounterVec
	last        prometheus.Gauge
	changes     *prometheus.CounterVec
	programming prometheus.Histogram
	repairs     prometheus.Counter
	cleanings   prometheus.Histogram
	forgotten   prometheus.Counter
	unclean     prometheus.Counter
	healthz     *prometheus.CounterVec
	livez       *prometheus.CounterVec
}

const prefix = "steelyard_dataplane_"

func newMetrics(e *Engine, r prometheus.Registerer) *metrics {
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{label})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	durations := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}
	}
	m := &metrics{
		syncs:    prometheus.NewHistogramVec(durations("sync_duration_seconds", "Time that it took to put changes in the kernel: all rules (full), or those that changed (partial)."), []string{"kind"}),
		failures: vec("sync_failures_total", "Attempts to put changes in the kernel that failed.", "kind"),
		last:     prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "sync_last_timestamp_seconds", Help: "When changes were last put in the kernel with success."}),
		changes:  vec("changes_total", "Changes of Services and EndpointSlices that the API server told.", "kind"),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + "network_programming_duration_seconds",
			Help: "Time from the change of a pod or Service until the rules for it were in the kernel.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 16)}),
		repairs:   counter("repairs_total", "Times that somebody else's change of the rules was found and undone."),
		cleanings: prometheus.NewHistogram(durations("conntrack_duration_seconds", "Time that it took to look for UDP flows to what no longer serves.")),
		forgotten: counter("conntrack_deleted_entries_total", "UDP flows to what no longer serves that were made to begin anew."),
		unclean:   counter("conntrack_failures_total", "Attempts to look for UDP flows to what no longer serves that failed."),
		healthz:   vec("healthz_total", "Answers of /healthz.", "code"),
		livez:     vec("livez_total", "Answers of /livez.", "code"),
	}
	if r != nil {
		r.MustRegister(m.syncs, m.failures, m.last, m.changes, m.programming, m.repairs, m.cleanings, m.forgotten, m.unclean, m.healthz, m.livez, &carried{e})
	}
	return m
}

func (m *metrics) synced(full bool, took time.Duration, err error) {
	kind := "partial"
	if full {
		kind = "full"
	}
	m.syncs.WithLabelValues(kind).Observe(took.Seconds())
	if err != nil {
		m.failures.WithLabelValues(kind).Inc()
	} else {
		m.last.SetToCurrentTime()
	}
}

// programmed tells that what was triggered at these times is in the kernel. What is older than this process would say how long it was away.
func (m *metrics) programmed(triggers []time.Time, began time.Time) {
	for _, t := range triggers {
		if t.After(began) {
			m.programming.Observe(time.Since(t).Seconds())
		}
	}
}

func (m *metrics) cleaned(took time.Duration, deleted int, err error) {
	m.cleanings.Observe(took.Seconds())
	m.forgotten.Add(float64(deleted))
	if err != nil {
		m.unclean.Inc()
	}
}

func (m *metrics) answered(path string, code int) {
	if path == "/livez" {
		m.livez.WithLabelValues(strconv.Itoa(code)).Inc()
	} else {
		m.healthz.WithLabelValues(strconv.Itoa(code)).Inc()
	}
}

// carried counts what is in the model when it is asked.
type carried struct{ *Engine }

var (
	pendingDesc   = prometheus.NewDesc(prefix+"changes_pending", "Changes that the API server told and that no sync has begun to put in the kernel.", nil, nil)
	oldestDesc    = prometheus.NewDesc(prefix+"oldest_pending_timestamp_seconds", "When the oldest change came that is not in the kernel; 0 if all are.", nil, nil)
	servicesDesc  = prometheus.NewDesc(prefix+"services", "Services that this node carries.", nil, nil)
	endpointsDesc = prometheus.NewDesc(prefix+"endpoints", "Endpoints of the Services that this node carries, for each port and family.", nil, nil)
	withoutDesc   = prometheus.NewDesc(prefix+"services_without_local_endpoints", "Services with the traffic policy Local, and with endpoints, but none on this node.", []string{"traffic_policy"}, nil)
)

func (c *carried) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{pendingDesc, oldestDesc, servicesDesc, endpointsDesc, withoutDesc} {
		ch <- d
	}
}

func (c *carried) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.collect() {
		ch <- m
	}
}

func (c *carried) collect() (out []prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...))
	}
	var endpoints, internal, external int
	for _, ports := range c.model.Ports {
		var in, ex bool
		for _, p := range ports {
			endpoints += len(p.Cluster)
			none := len(p.Local) == 0 && len(p.Cluster) > 0
			in = in || none && p.InternalLocal
			ex = ex || none && p.ExternalLocal
		}
		if in {
			internal++
		}
		if ex {
			external++
		}
	}
	queued := 0
	if since := c.behind(); !since.IsZero() {
		queued = int(since.Unix())
	}
	gauge(pendingDesc, c.waiting)
	gauge(oldestDesc, queued)
	gauge(servicesDesc, len(c.model.Ports))
	gauge(endpointsDesc, endpoints)
	gauge(withoutDesc, internal, "internal")
	gauge(withoutDesc, external, "external")
	return out
}
