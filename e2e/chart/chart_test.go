package chart_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/yaml"

	"github.com/google/go-cmp/cmp"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func TestLint(t *testing.T) {
	mustHelm(t, "lint", "--strict", ".")
}

// A release keeps every file of its chart in the cluster, so a forgotten line in .helmignore costs megabytes there.
func TestPackageHoldsOnlyTheChart(t *testing.T) {
	dir := t.TempDir()
	mustHelm(t, "package", "--destination", dir, ".")
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives %v, %v", archives, err)
	}
	file, err := os.Open(archives[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`^steelyard/(Chart\.yaml|values\.yaml|values\.schema\.json|README\.md|LICENSE|templates/.*|config/crd/.*\.yaml|config/monitoring/(rules\.yaml|dashboard\.json))$`)
	crds := 0
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !wanted.MatchString(header.Name) {
			t.Errorf("%s is in the chart; ignore it in .helmignore", header.Name)
		}
		if strings.HasPrefix(header.Name, "steelyard/config/crd/") {
			crds++
		}
	}
	if crds == 0 {
		t.Error("the chart holds no custom resource definition")
	}
}

func TestNamesAndLabels(t *testing.T) {
	component := regexp.MustCompile(`^steelyard-(controller|speaker)$`)
	for _, object := range render(t) {
		if _, ok := object.(*apiextensionsv1.CustomResourceDefinition); ok {
			continue
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			t.Fatal(err)
		}
		match := component.FindStringSubmatch(accessor.GetName())
		if match == nil {
			t.Errorf("%T is named %q", object, accessor.GetName())
			continue
		}
		want := map[string]string{
			"app.kubernetes.io/name":       "steelyard",
			"app.kubernetes.io/instance":   release,
			"app.kubernetes.io/component":  match[1],
			"app.kubernetes.io/managed-by": "Helm",
		}
		got := accessor.GetLabels()
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%T %s: label %s is %q, want %q", object, accessor.GetName(), name, got[name], value)
			}
		}
	}
}

func TestCustomResourceDefinitions(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "config/crd/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions in config/crd (%v)", err)
	}
	var documents []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, strings.TrimPrefix(string(content), "---\n"))
	}
	want := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, crd := range all[*apiextensionsv1.CustomResourceDefinition](decode(t, strings.Join(documents, "\n---\n"))) {
		// Or uninstalling Steelyard would delete every pool, and with it the address of every Service.
		crd.Annotations["helm.sh/resource-policy"] = "keep"
		want[crd.Name] = crd
	}
	got := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, crd := range all[*apiextensionsv1.CustomResourceDefinition](render(t)) {
		got[crd.Name] = crd
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the chart's definitions differ from config/crd (-want +got):\n%s", diff)
	}
	if without := all[*apiextensionsv1.CustomResourceDefinition](render(t, "--set", "crds.install=false")); len(without) != 0 {
		t.Errorf("crds.install=false: %d definitions", len(without))
	}
}

func TestSchemaRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		values string
		want   []string
	}{
		"a misspelt section":                   {"contoller: {replicas: 3}", []string{"contoller", "not allowed"}},
		"a misspelt value":                     {"speaker: {nodeselector: {a: b}}", []string{"/speaker", "nodeselector", "not allowed"}},
		"an unknown log level":                 {"logLevel: loud", []string{"/logLevel", "'debug', 'info', 'warn', 'error'"}},
		"words for a number":                   {"controller: {replicas: two}", []string{"/controller/replicas", "want integer"}},
		"a duration without unit":              {"speaker: {gratuitousInterval: 30}", []string{"/speaker/gratuitousInterval", "want string"}},
		"a duration with a foreign unit":       {"speaker: {gratuitousInterval: 1d}", []string{"/speaker/gratuitousInterval", "'1d'"}},
		"a URL for the API server's host":      {"kubernetes: {host: 'https://192.0.2.1'}", []string{"/kubernetes/host", "https://192.0.2.1"}},
		"a port within the API server's host":  {"kubernetes: {host: '192.0.2.1:6443'}", []string{"/kubernetes/host", "192.0.2.1:6443"}},
		"a mode that is none":                  {"dataplane: {mode: on}", []string{"/dataplane/mode", "'loadbalancer', 'full', 'off'"}},
		"full without the API server's host":   {"dataplane: {mode: full}", []string{"set kubernetes.host"}},
		"a pod network without a length":       {"dataplane: {podCIDRs: [10.244.0.0]}", []string{"/dataplane/podCIDRs/0", "'10.244.0.0'"}},
		"a port that is none":                  {"speaker: {ports: {memberlist: 70000}}", []string{"/speaker/ports/memberlist", "65,535"}},
		"a tag that YAML reads as a number":    {"image: {speaker: {tag: 1.10}}", []string{"/image/speaker/tag", "want string"}},
		"a class that is no class":             {"loadBalancerClass: a/b/c", []string{"/loadBalancerClass", "'a/b/c'"}},
		"a flag without dash":                  {"speaker: {extraArgs: [log-level=debug]}", []string{"/speaker/extraArgs/0", "'log-level=debug'"}},
		"a pull secret as a bare name":         {"imagePullSecrets: [registry]", []string{"/imagePullSecrets/0", "want object"}},
		"a toleration that is not in a list":   {"speaker: {tolerations: {operator: Exists}}", []string{"/speaker/tolerations", "want array"}},
		"an exclusion that is not in a list":   {"speaker: {excludeInterfaces: ^veth}", []string{"/speaker/excludeInterfaces", "want array"}},
		"an exclusion with a comma":            {"speaker: {excludeInterfaces: ['^eno{1,2}']}", []string{"/speaker/excludeInterfaces/0", "'^eno{1,2}'"}},
		"a label that is no text":              {"monitoring: {rules: {labels: {team: 7}}}", []string{"/monitoring/rules/labels/team", "want string"}},
		"a node selector with a boolean value": {"speaker: {nodeSelector: {edge: true}}", []string{"/speaker/nodeSelector/edge", "want string"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, []byte(test.values), 0o600); err != nil {
				t.Fatal(err)
			}
			_, stderr, err := helm(t, "template", release, ".", "--values", file)
			if err == nil {
				t.Fatalf("%s was accepted", test.values)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("the message lacks %q:\n%s", want, stderr)
				}
			}
		})
	}
}

// The schema refuses what it does not list, so a value that is only in one of the two files cannot be used or is not documented.
func TestSchemaAndValuesAgree(t *testing.T) {
	var values, schema map[string]any
	for file, into := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(content, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	definitions := schema["$defs"].(map[string]any)
	var compare func(path string, schema, value map[string]any)
	compare = func(path string, schema, value map[string]any) {
		properties := schema["properties"].(map[string]any)
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return path == "" && name == "global" })
		if diff := cmp.Diff(names, slices.Sorted(maps.Keys(value))); diff != "" {
			t.Errorf("section %q (-schema +values):\n%s", path, diff)
			return
		}
		for _, name := range names {
			property := properties[name].(map[string]any)
			if ref, ok := property["$ref"].(string); ok {
				property = definitions[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
			}
			if _, ok := property["properties"]; ok {
				compare(path+"/"+name, property, value[name].(map[string]any))
			}
		}
	}
	compare("", schema, values)
}

func TestEveryValueIsCommented(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`^ *([A-Za-z]+):`)
	lines := strings.Split(string(content), "\n")
	// What a comment on the section above says.
	explained := []string{"image", "crds", "kubernetes", "speaker", "repository", "tag", "requests", "limits", "cpu", "memory"}
	for i, line := range lines {
		match := key.FindStringSubmatch(line)
		if match == nil || slices.Contains(explained, match[1]) {
			continue
		}
		if i == 0 || !strings.HasPrefix(strings.TrimSpace(lines[i-1]), "#") {
			t.Errorf("values.yaml:%d: %s has no comment", i+1, match[1])
		}
	}
}

// What the notes tell people to apply has to be something that the API takes.
func TestNotes(t *testing.T) {
	notes := func(args ...string) string {
		out := mustHelm(t, append([]string{"install", release, ".", "--namespace", namespace, "--dry-run=client"}, args...)...)
		_, notes, found := strings.Cut(out, "\nNOTES:\n")
		if !found {
			t.Fatalf("no notes in:\n%s", out)
		}
		return notes
	}
	text := notes("--set", "loadBalancerClass=example.com/edge")
	_, manifest, found := strings.Cut(text, "<<EOF\n")
	manifest, _, closed := strings.Cut(manifest, "\nEOF\n")
	if !found || !closed {
		t.Fatalf("no manifest to paste into a shell in:\n%s", text)
	}
	objects := decode(t, manifest)
	if addresses := find[*v1beta1.IPAddressPool](t, objects).Spec.Addresses; len(addresses) == 0 {
		t.Error("the pool in the notes is empty")
	}
	find[*v1beta1.L2Advertisement](t, objects)
	for _, want := range []string{
		"example.com/edge",
		"kubectl -n " + namespace + " rollout status deployment/steelyard-controller",
		"kubectl -n " + namespace + " rollout status daemonset/steelyard-speaker",
		"kubectl label namespace " + namespace + " pod-security.kubernetes.io/enforce=privileged",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the notes lack %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "config/crd") {
		t.Errorf("the notes ask for definitions that the chart installs:\n%s", text)
	}
	if text := notes("--set", "crds.install=false"); !strings.Contains(text, "apply config/crd") {
		t.Errorf("the notes do not say where the definitions come from:\n%s", text)
	}
}
