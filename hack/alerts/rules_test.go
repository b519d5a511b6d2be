// Package alerts tests Prometheus' rules and the dashboard in config/monitoring with Prometheus' own code. It is a module of its own,
// so that the product does not depend on Prometheus.
package alerts

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"gopkg.in/yaml.v3"
)

const rulesFile = "../../config/monitoring/rules.yaml"

// scenarios is what cases.yaml holds.
type scenarios struct {
	// Healthy are the series of a cluster that has no trouble, with their values in promtool's notation. A case replaces those that
	// it names, and adds others.
	Healthy map[string]string
	Cases   []scenario
}

type scenario struct {
	Name   string
	Step   model.Duration // between two values of a series, and between two evaluations
	Length model.Duration
	Series map[string]string
	// Without takes series out of Healthy.
	Without []string
	Fires   []firing
}

// firing is an alert, and when it fires: from the first evaluation until the last. Nothing else may fire.
type firing struct {
	Alert, Severity, Summary string
	From, Until              model.Duration
}

func TestAlerts(t *testing.T) {
	file, err := os.Open("cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all scenarios
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for _, c := range all.Cases {
		t.Run(c.Name, func(t *testing.T) {
			series := maps.Clone(all.Healthy)
			maps.Copy(series, c.Series)
			for _, name := range c.Without {
				delete(series, name)
			}
			step, length := time.Duration(c.Step), time.Duration(c.Length)
			if step == 0 {
				step = time.Minute
			}
			if diff := cmp.Diff(c.Fires, evaluate(t, series, step, length)); diff != "" {
				t.Errorf("what fires (-want +got):\n%s", diff)
			}
		})
		for _, f := range c.Fires {
			tested[f.Alert] = true
		}
	}
	for _, rule := range alertRules(t) {
		if !tested[rule.Alert] {
			t.Errorf("no case makes %s fire", rule.Alert)
		}
	}
}

// evaluate runs the rules over the series, as Prometheus would, and gives what fired, by the time of its beginning and by name.
func evaluate(t *testing.T, series map[string]string, step, length time.Duration) []firing {
	t.Helper()
	load := fmt.Sprintf("load %s\n", model.Duration(step))
	for _, name := range slices.Sorted(maps.Keys(series)) {
		load += fmt.Sprintf("  %s %s\n", name, series[name])
	}
	suite, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	if err != nil {
		t.Fatalf("%v in\n%s", err, load)
	}
	defer suite.Close()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(suite.QueryEngine(), suite.Storage()),
		Appendable: suite.Storage(),
		Context:    t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger:     slog.New(slog.DiscardHandler),
	})
	groups, errs := manager.LoadGroups(step, labels.EmptyLabels(), "", nil, false, rulesFile)
	if errs != nil {
		t.Fatal(errs)
	}
	var fired []firing
	latest := map[uint64]int{} // in fired, by an alert's labels
	for now := time.Duration(0); now <= length; now += step {
		at := time.Unix(0, 0).UTC().Add(now)
		suite.WithSamplesTill(at, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range groups {
				group.Eval(t.Context(), at)
			}
		})
		for _, group := range groups {
			for _, rule := range group.Rules() {
				if rule.LastError() != nil {
					t.Fatalf("%s at %s: %v", rule.Name(), now, rule.LastError())
				}
				for _, alert := range rule.(*rules.AlertingRule).ActiveAlerts() {
					if alert.State != rules.StateFiring {
						continue
					}
					i, ok := latest[alert.Labels.Hash()]
					if !ok || fired[i].Until != model.Duration(now-step) {
						i = len(fired)
						latest[alert.Labels.Hash()] = i
						fired = append(fired, begun(t, alert, model.Duration(now)))
					}
					fired[i].Until = model.Duration(now)
				}
			}
		}
	}
	slices.SortStableFunc(fired, func(a, b firing) int {
		return strings.Compare(a.Alert+a.Severity+a.Summary, b.Alert+b.Severity+b.Summary)
	})
	return fired
}

// begun is an alert that fires since now, with texts that somebody can read.
func begun(t *testing.T, alert *rules.Alert, now model.Duration) firing {
	t.Helper()
	for _, text := range []string{"summary", "description", "runbook_url"} {
		got := alert.Annotations.Get(text)
		if got == "" || strings.Contains(got, "<") || strings.Contains(got, "%!") || strings.Contains(got, "  ") {
			t.Fatalf("%s of %v is %q", text, alert.Labels, got)
		}
	}
	return firing{Alert: alert.Labels.Get(labels.AlertName), Severity: alert.Labels.Get("severity"), Summary: alert.Annotations.Get("summary"), From: now}
}
