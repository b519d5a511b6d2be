package controller

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

var (
	addressesDesc = prometheus.NewDesc("steelyard_pool_addresses",
		"Addresses that a pool can give out; 9223372036854775807 stands for more.", []string{"pool", "family"}, nil)
	inUseDesc = prometheus.NewDesc("steelyard_pool_addresses_in_use",
		"Addresses of a pool that Services have.", []string{"pool", "family"}, nil)
	waitingDesc = prometheus.NewDesc("steelyard_services_waiting",
		"Services that have not got the addresses that they ask for.", []string{"reason"}, nil)
)

// collector reads the metrics from where the truth is. On a replica that does not lead there are none.
type collector struct {
	allocator *ipam.Allocator
	waiting   *waiting
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- addressesDesc
	ch <- inUseDesc
	ch <- waitingDesc
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.allocator.Stats() {
		ch <- prometheus.MustNewConstMetric(addressesDesc, prometheus.GaugeValue, float64(s.Total), s.Pool, string(s.Family))
		ch <- prometheus.MustNewConstMetric(inUseDesc, prometheus.GaugeValue, float64(s.InUse), s.Pool, string(s.Family))
	}
	for reason, n := range c.waiting.byReason() {
		ch <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(n), string(reason))
	}
}
