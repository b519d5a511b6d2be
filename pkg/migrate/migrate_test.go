package migrate

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestConvert compares what becomes of each testdata/*.yaml with the golden file beside it, whatever the order of the objects.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			objects, services := read(t, file)
			got := converted(t, objects, services)
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("has become\n%s", got)
			}
			random := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
				random.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
				if other := converted(t, objects, services); other != got {
					t.Fatalf("in another order it has become\n%s", other)
				}
			}
		})
	}
}

// TestLost: a configuration of which nothing is lost says so, because scripts go by it.
func TestLost(t *testing.T) {
	for file, want := range map[string]bool{"layer2.yaml": false, "sharing.yaml": false, "addresspool.yaml": false, "bgp.yaml": true, "left-out.yaml": true} {
		objects, services := read(t, filepath.Join("testdata", file))
		if result := Convert(objects, services, "metallb-system"); result.Lost() != want {
			t.Errorf("%s: lost is %v: %v", file, result.Lost(), result.Notes)
		}
	}
}

func read(t *testing.T, file string) (objects []unstructured.Unstructured, services []corev1.Service) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
		o := unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
		if o.GetKind() == "Service" {
			var svc corev1.Service
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &svc); err != nil {
				t.Fatal(err)
			}
			services = append(services, svc)
		}
	}
	return objects, services
}

func converted(t *testing.T, objects []unstructured.Unstructured, services []corev1.Service) string {
	t.Helper()
	result := Convert(objects, services, "metallb-system")
	text, err := result.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range result.Notes {
		mark := "note"
		if n.Lost {
			mark = "lost"
		}
		fmt.Fprintf(&b, "# %s: %s\n", mark, n)
	}
	return b.String() + string(text)
}
