package chart_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Nobody has the Prometheus Operator's kinds unless he says so.
func TestMonitoringIsOffByDefault(t *testing.T) {
	for _, object := range monitoring(t) {
		t.Errorf("%s %s", object.GetKind(), object.GetName())
	}
}

func TestRules(t *testing.T) {
	objects := monitoring(t, "--set", "monitoring.rules.enabled=true,monitoring.rules.labels.release=prometheus")
	rule := only(t, objects)
	labelled(t, rule, "PrometheusRule", "release", "prometheus")
	var want map[string]any
	if err := yaml.Unmarshal(file(t, "config/monitoring/rules.yaml"), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, rule.Object["spec"]); diff != "" {
		t.Errorf("the chart's rules differ from config/monitoring/rules.yaml (-want +got):\n%s", diff)
	}
}

func TestDashboard(t *testing.T) {
	dashboard := only(t, monitoring(t, "--set", "monitoring.dashboard.enabled=true"))
	labelled(t, dashboard, "ConfigMap", "grafana_dashboard", "1")
	want := map[string]any{"steelyard.json": string(file(t, "config/monitoring/dashboard.json"))}
	if diff := cmp.Diff(want, dashboard.Object["data"]); diff != "" {
		t.Errorf("the chart's dashboard differs from config/monitoring/dashboard.json (-want +got):\n%s", diff)
	}
}

func TestPodMonitor(t *testing.T) {
	args := []string{"--set", "monitoring.podMonitor.enabled=true,monitoring.podMonitor.labels.release=prometheus"}
	monitor := only(t, monitoring(t, args...))
	labelled(t, monitor, "PodMonitor", "release", "prometheus")
	selector, _, err := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
	if err != nil || len(selector) == 0 {
		t.Fatalf("it selects pods by %v (%v)", selector, err)
	}
	endpoints, _, err := unstructured.NestedSlice(monitor.Object, "spec", "podMetricsEndpoints")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := only(t, endpoints).(map[string]any)
	objects := render(t)
	for _, pod := range []corev1.PodTemplateSpec{controllerOf(t, objects).Spec.Template, speakerOf(t, objects).Spec.Template} {
		container := only(t, pod.Spec.Containers)
		for name, value := range selector {
			if pod.Labels[name] != value {
				t.Errorf("the %s's pods have the label %s=%s, and the PodMonitor wants %s", container.Name, name, pod.Labels[name], value)
			}
		}
		if !slices.ContainsFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == endpoint["port"] }) {
			t.Errorf("the %s has no port %v, which the PodMonitor wants", container.Name, endpoint["port"])
		}
	}
}

// Helm says what is missing where it knows, and renders for others where it doesn't.
func TestOperatorIsMissed(t *testing.T) {
	for value, kind := range map[string]string{"podMonitor": "PodMonitor", "rules": "PrometheusRule"} {
		args := []string{"template", release, ".", "--set", "monitoring." + value + ".enabled=true", "--api-versions", "v1/Pod"}
		_, stderr, err := helm(t, args...)
		want := "monitoring." + value + ".enabled is true, but the cluster has no kind " + kind + ": install the Prometheus Operator first"
		if err == nil || !strings.Contains(stderr, want) {
			t.Errorf("in a cluster without %s: %v\n%s", kind, err, stderr)
		}
		mustHelm(t, append(args, "--api-versions", "monitoring.coreos.com/v1/"+kind)...)
	}
}

// monitoring gives the chart's objects of templates/monitoring; `helm template` takes the arguments.
func monitoring(t *testing.T, args ...string) []unstructured.Unstructured {
	t.Helper()
	var objects []unstructured.Unstructured
	for document := range strings.SplitSeq("\n"+mustHelm(t, append([]string{"template", release, ".", "--namespace", namespace}, args...)...), "\n---\n") {
		if !strings.Contains(document, "# Source: steelyard/templates/monitoring/") {
			continue
		}
		var object unstructured.Unstructured
		if err := yaml.UnmarshalStrict([]byte(document), &object.Object); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		objects = append(objects, object)
	}
	return objects
}

func labelled(t *testing.T, object unstructured.Unstructured, kind, name, value string) {
	t.Helper()
	if object.GetKind() != kind || object.GetName() != "steelyard-monitoring" || object.GetNamespace() != namespace {
		t.Errorf("%s %s in namespace %s", object.GetKind(), object.GetName(), object.GetNamespace())
	}
	for name, value := range map[string]string{name: value, "app.kubernetes.io/component": "monitoring"} {
		if got := object.GetLabels()[name]; got != value {
			t.Errorf("label %s is %q, want %q", name, got, value)
		}
	}
}

func file(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
