package controller

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

var (
	addressesDesc = prometheus.NewDesc("steelyard_pool_addresses",
		"Addresses that a pool can give out; 9223372036854775807 stands for more.", []string{"pool", "family"}, nil)
	inUseDesc = prometheus.NewDesc("steelyard_pool_addresses_in_use",
		"Addresses of a pool that Services have.", []string{"pool", "family"}, nil)
	reservedDesc = prometheus.NewDesc("steelyard_pool_addresses_reserved",
		"Free addresses of a pool that only the Services can have that they are reserved for.", []string{"pool", "family"}, nil)
	poolConflictsDesc = prometheus.NewDesc("steelyard_pool_conflicts",
		"Services with an address of the pool that another machine answers for.", []string{"pool"}, nil)
	quotaDesc = prometheus.NewDesc("steelyard_quota_addresses",
		"Addresses of each family that a namespace with addresses of the pool may have of it.", []string{"pool", "namespace"}, nil)
	quotaInUseDesc = prometheus.NewDesc("steelyard_quota_addresses_in_use",
		"Addresses that a namespace with a quota has of the pool.", []string{"pool", "namespace", "family"}, nil)
	assignedDesc = prometheus.NewDesc("steelyard_services_assigned",
		"Services that have addresses.", nil, nil)
	waitingDesc = prometheus.NewDesc("steelyard_services_waiting",
		"Services that have not got the addresses that they ask for.", []string{"reason"}, nil)
	faultsDesc = prometheus.NewDesc("steelyard_config_faults",
		"What is wrong with an object of the configuration that is not Valid.", []string{"kind", "name"}, nil)
)

// notServed is the reason for which a Service loses its addresses that is of another type or class now.
const notServed = "NotServed"

// snapshot is what the last look at the configuration found.
type snapshot struct {
	config    *config.Config
	faults    []config.Fault
	conflicts []conflict
}

// counters count what can't be read from anywhere later.
type counters struct {
	assigned *prometheus.CounterVec
	lost     *prometheus.CounterVec
	writes   *prometheus.CounterVec
	decision prometheus.Histogram
}

func newCounters() *counters {
	return &counters{
		assigned: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "steelyard_addresses_assigned_total",
			Help: "Addresses of a pool that were given to a Service that had not had them."}, []string{"pool"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "steelyard_addresses_lost_total",
			Help: "Addresses that were taken from a Service that still exists, by its reason now: Assigned if it has another instead."}, []string{"pool", "reason"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "steelyard_api_writes_total",
			Help: "Writes to objects of a kind; the result is ok, conflict (done again later) or error."}, []string{"kind", "result"}),
		decision: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "steelyard_decision_seconds",
			Help: "Time to decide which addresses a Service has, without the write.", Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10)}),
	}
}

// wrote counts a write to the API server.
func (c *counters) wrote(kind string, err error) {
	result := "ok"
	switch {
	case apierrors.IsConflict(err):
		result = "conflict"
	case err != nil:
		result = "error"
	}
	c.writes.WithLabelValues(kind, result).Inc()
}

// moved counts the addresses that a Service has got and lost.
func (c *counters) moved(cfg *config.Config, before, after []netip.Addr, reason ipam.Reason) {
	for _, a := range after {
		if !slices.Contains(before, a) {
			c.assigned.WithLabelValues(poolName(cfg, a)).Inc()
		}
	}
	if reason == "" {
		reason = notServed
	}
	for _, a := range before {
		if !slices.Contains(after, a) {
			c.lost.WithLabelValues(poolName(cfg, a), string(reason)).Inc()
		}
	}
}

// poolName returns the name of the address's pool, "" if it is in none.
func poolName(cfg *config.Config, a netip.Addr) string {
	if p := cfg.PoolOf(a); p != nil {
		return p.Name
	}
	return ""
}

func kindOf(object client.Object) string { return reflect.TypeOf(object).Elem().Name() }

// collector reads the metrics from where the truth is. On a replica that does not lead there are only the counters.
type collector struct {
	*counters
	allocator *ipam.Allocator
	waiting   *waiting
	snapshot  *atomic.Pointer[snapshot]
	namespace func(ctx context.Context, name string) (labels.Set, error)
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{addressesDesc, inUseDesc, reservedDesc, poolConflictsDesc, quotaDesc, quotaInUseDesc, assignedDesc, waitingDesc, faultsDesc} {
		ch <- desc
	}
	for _, inner := range c.counted() {
		inner.Describe(ch)
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, inner := range c.counted() {
		inner.Collect(ch)
	}
	last := c.snapshot.Load()
	if last == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	limits := map[[2]string]int64{} // by pool and namespace
	for _, s := range c.allocator.Stats() {
		gauge(addressesDesc, s.Total, s.Pool, string(s.Family))
		gauge(inUseDesc, s.InUse, s.Pool, string(s.Family))
		gauge(reservedDesc, s.Reserved, s.Pool, string(s.Family))
		for namespace, n := range s.Namespaces {
			if limit, limited := c.quota(last.config.Pool(s.Pool), namespace); limited {
				gauge(quotaInUseDesc, n, s.Pool, namespace, string(s.Family))
				limits[[2]string{s.Pool, namespace}] = int64(limit)
			}
		}
	}
	for of, limit := range limits {
		gauge(quotaDesc, limit, of[0], of[1])
	}
	for _, p := range last.config.Pools {
		gauge(poolConflictsDesc, int64(len(conflictsOf(last.conflicts, p.Name))), p.Name)
	}
	gauge(assignedDesc, int64(len(c.allocator.Services())))
	for reason, n := range c.waiting.byReason() {
		gauge(waitingDesc, int64(n), string(reason))
	}
	faults := map[[2]string]int64{}
	for _, f := range last.faults {
		if !f.Warning {
			faults[[2]string{f.Kind, f.Name}]++
		}
	}
	for object, n := range faults {
		gauge(faultsDesc, n, object[0], object[1])
	}
}

func (c *collector) counted() []prometheus.Collector {
	return []prometheus.Collector{c.assigned, c.lost, c.writes, c.decision}
}

// quota returns the limit of a namespace in a pool. There is none in one that has gone since the last look at the configuration.
func (c *collector) quota(pool *config.Pool, namespace string) (limit int, limited bool) {
	if pool == nil {
		return 0, false
	}
	set, err := c.namespace(context.Background(), namespace)
	if err != nil {
		return 0, false
	}
	return pool.Quota(namespace, set)
}
