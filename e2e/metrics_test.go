package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
)

var (
	series    = regexp.MustCompile(`(?m)^(steelyard_[a-z0-9_]+)[{ ]`)
	histogram = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// TestMetricsAreDocumented: what the programs serve is what docs/metrics.md lists, and what the alerts most depend on is there.
func TestMetricsAreDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/metrics.md")
	must(t, err)
	create(t, lbService("measured", families[0]))
	addr := address(t, "measured")
	node := owner(t, addr)
	must(t, lab.WaitFor(t.Context(), "the metrics of a Service", func(ctx context.Context) error {
		var pods corev1.PodList
		if err := lab.List(ctx, &pods, client.InNamespace(fixture.Namespace)); err != nil {
			return err
		}
		all := ""
		for _, p := range pods.Items {
			out, err := lab.Kubectl(ctx, "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:7472/proxy/metrics", p.Namespace, p.Name))
			if err != nil {
				return err
			}
			all += out
		}
		for _, want := range []string{
			`steelyard_announced{ip="` + addr.String() + `",node="` + node + `",protocol="layer2",service="default/measured"} 1`,
			`steelyard_pool_addresses{family="IPv4",pool="lan"} 20`,
			`steelyard_pool_addresses_in_use{family="IPv4",pool="lan"} 1`,
			`leader_election_master_status{name="steelyard-controller"} 1`,
			`steelyard_membership_members 3`,
			`steelyard_membership_listed 3`,
			`steelyard_dataplane_changes_pending 0`,
		} {
			if !strings.Contains(all, want+"\n") {
				return fmt.Errorf("there is no %s", want)
			}
		}
		for _, m := range series.FindAllStringSubmatch(all, -1) {
			if name := histogram.ReplaceAllString(m[1], ""); !strings.Contains(string(docs), "`"+name+"`") && !strings.Contains(string(docs), "`"+m[1]+"`") {
				t.Errorf("docs/metrics.md does not list %s", m[1])
			}
		}
		return nil
	}))
}
