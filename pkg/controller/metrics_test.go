package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// measured returns the series of a registry as lines: name, values of the labels, value.
func measured(t testing.TB, registry *prometheus.Registry) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.Metric {
			words := []string{f.GetName()}
			for _, l := range m.Label {
				words = append(words, l.GetValue())
			}
			switch f.GetType().String() {
			case "COUNTER":
				words = append(words, fmt.Sprint(m.Counter.GetValue()))
			case "HISTOGRAM":
				words = append(words, fmt.Sprint(m.Histogram.GetSampleCount() > 0))
			default:
				words = append(words, fmt.Sprint(m.Gauge.GetValue()))
			}
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return lines
}

func TestMetrics(t *testing.T) {
	prod := pool("prod", "192.0.2.0/31", "2001:db8::/64")
	prod.Spec.NamespaceQuotas = []v1beta1.NamespaceQuota{{Addresses: 5, Namespaces: []string{"default"}}}
	c := newCluster(t, prod, pool("bad", "rubbish"))
	r := c.start(false)
	c.create(newService("a"))
	c.has("a", "192.0.2.0 True Assigned")
	c.change("a", annotated(v1beta1.AnnotationAddresses, "192.0.2.1"))
	c.has("a", "192.0.2.1 True Assigned")
	c.create(newService("b", annotated(v1beta1.AnnotationPool, "none")))
	c.has("b", "False UnknownPool")
	c.create(newService("c"))
	c.has("c", "192.0.2.0 True Assigned")
	c.change("c", ofType(corev1.ServiceTypeClusterIP))
	c.has("c", "")
	want := []string{
		"steelyard_addresses_assigned_total prod 3",
		"steelyard_addresses_lost_total prod Assigned 1", "steelyard_addresses_lost_total prod NotServed 1",
		"steelyard_api_writes_total Service ok 5",
		"steelyard_config_faults IPAddressPool bad 1",
		"steelyard_decision_seconds true",
		"steelyard_pool_addresses IPv4 bad 0", "steelyard_pool_addresses IPv4 prod 2",
		"steelyard_pool_addresses IPv6 bad 0", "steelyard_pool_addresses IPv6 prod 9.223372036854776e+18",
		"steelyard_pool_addresses_in_use IPv4 bad 0", "steelyard_pool_addresses_in_use IPv4 prod 1",
		"steelyard_pool_addresses_in_use IPv6 bad 0", "steelyard_pool_addresses_in_use IPv6 prod 0",
		"steelyard_pool_addresses_reserved IPv4 bad 0", "steelyard_pool_addresses_reserved IPv4 prod 0",
		"steelyard_pool_addresses_reserved IPv6 bad 0", "steelyard_pool_addresses_reserved IPv6 prod 0",
		"steelyard_pool_conflicts bad 0", "steelyard_pool_conflicts prod 0",
		"steelyard_quota_addresses default prod 5", "steelyard_quota_addresses_in_use IPv4 default prod 1",
		"steelyard_services_assigned 1",
		"steelyard_services_waiting UnknownPool 1",
	}
	slices.Sort(want)
	c.eventually("metrics", func() string {
		got := slices.DeleteFunc(measured(t, r.metrics), func(line string) bool {
			// As many as it took; a conflict is a write by what the cache showed a moment ago.
			return strings.HasPrefix(line, "steelyard_api_writes_total IPAddressPool") || strings.HasPrefix(line, "steelyard_api_writes_total Service conflict")
		})
		slices.Sort(got)
		return strings.Join(got, "\n")
	}, strings.Join(want, "\n"))
}
