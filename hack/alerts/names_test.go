package alerts

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	dashboardFile = "../../config/monitoring/dashboard.json"
	documentation = "../../docs/metrics.md"
)

// ofTargets are the labels that Prometheus adds to all series of a pod, as the chart's PodMonitor has it.
var ofTargets = []string{"instance", "job", "namespace", "pod", "container", "endpoint", "node"}

func alertRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.LegacyValidation)
	if errs != nil {
		t.Fatal(errs)
	}
	var all []rulefmt.Rule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func TestRulesNameWhatIs(t *testing.T) {
	documented := documentedMetrics(t)
	label := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, rule := range alertRules(t) {
		known := check(t, rule.Alert, rule.Expr, documented)
		for _, text := range rule.Annotations {
			for _, match := range label.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(known, match[1]) {
					t.Errorf("%s: its text uses the label %s, which none of its metrics has", rule.Alert, match[1])
				}
			}
		}
	}
}

func TestDashboardNamesWhatIs(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	content, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	documented := documentedMetrics(t)
	legend := regexp.MustCompile(`{{(\w+)}}`)
	queries := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries++
			known := check(t, p.Title, strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(target.Expr), documented)
			for _, match := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(known, match[1]) {
					t.Errorf("%s: the legend uses the label %s, which none of its metrics has", p.Title, match[1])
				}
			}
		}
	}
	if queries == 0 {
		t.Error("the dashboard asks for nothing")
	}
}

// check parses a query and demands that its metrics are documented, with the labels that it uses. It gives the labels that they have.
func check(t *testing.T, name, query string, documented map[string][]string) []string {
	t.Helper()
	expr, err := parser.ParseExpr(query)
	if err != nil {
		t.Fatalf("%s: %v in %s", name, err, query)
	}
	known := slices.Clone(ofTargets)
	var used []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			of, ok := documented[n.Name]
			if !ok {
				t.Errorf("%s asks for %s, which docs/metrics.md does not list", name, n.Name)
			}
			known = append(known, of...)
			for _, matcher := range n.LabelMatchers {
				if matcher.Name != labels.MetricName && !slices.Contains(of, matcher.Name) {
					t.Errorf("%s asks for the label %s, which %s does not have", name, matcher.Name, n.Name)
				}
			}
		case *parser.AggregateExpr:
			used = append(used, n.Grouping...)
		}
		return nil
	})
	for _, label := range used {
		if !slices.Contains(known, label) {
			t.Errorf("%s groups by the label %s, which none of its metrics has", name, label)
		}
	}
	return known
}

// documentedMetrics reads the tables of docs/metrics.md: what each metric has for labels.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	content, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*)\\| (.*)$")
	quoted := regexp.MustCompile("`(\\w+)`")
	found := map[string][]string{}
	for _, match := range row.FindAllStringSubmatch(string(content), -1) {
		if _, ok := found[match[1]]; ok {
			t.Errorf("docs/metrics.md lists %s twice", match[1])
		}
		names := []string{}
		for _, label := range quoted.FindAllStringSubmatch(match[2], -1) {
			names = append(names, label[1])
		}
		if strings.Contains(match[3], "istogram") {
			found[match[1]+"_bucket"], found[match[1]+"_sum"], found[match[1]+"_count"] = append(names, "le"), names, names
		}
		found[match[1]] = names
	}
	if len(found) == 0 {
		t.Fatal("no table of metrics in docs/metrics.md")
	}
	return found
}

// An alert leads to a section with its name, and each section to an alert.
func TestAlertsAreDocumented(t *testing.T) {
	content, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	var sections, alerts []string
	for _, match := range regexp.MustCompile(`(?m)^### (Steelyard\w+)$`).FindAllStringSubmatch(string(content), -1) {
		sections = append(sections, match[1])
	}
	for _, rule := range alertRules(t) {
		alerts = append(alerts, rule.Alert)
		want := "https://github.com/steelyard-lb/steelyard/blob/main/docs/metrics.md#" + strings.ToLower(rule.Alert)
		if got := rule.Annotations["runbook_url"]; got != want {
			t.Errorf("%s leads to %s, want %s", rule.Alert, got, want)
		}
		if !slices.Contains(sections, rule.Alert) {
			t.Errorf("docs/metrics.md has no section %s", rule.Alert)
		}
	}
	for _, section := range sections {
		if !slices.Contains(alerts, section) {
			t.Errorf("docs/metrics.md has a section %s, and there is no such alert", section)
		}
	}
}
