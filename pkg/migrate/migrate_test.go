package migrate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/golden"
)

// TestConvert compares what becomes of each testdata/*.yaml with the golden file beside it, whatever the order of the objects.
func TestConvert(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			objects, snapshot := read(t, file)
			got := converted(t, objects, snapshot)
			golden.Compare(t, strings.TrimSuffix(file, ".yaml")+".golden", got)
			random := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
				services := snapshot.Services
				random.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
				if other := converted(t, objects, snapshot); other != got {
					t.Fatalf("in another order it has become\n%s", other)
				}
			}
		})
	}
}

// TestLost: a configuration of which nothing is lost says so, because scripts go by it.
func TestLost(t *testing.T) {
	for file, want := range map[string]bool{"layer2.yaml": false, "addresspool.yaml": false, "sharing.yaml": true, "bgp.yaml": true, "left-out.yaml": true} {
		objects, snapshot := read(t, filepath.Join("testdata", file))
		result, err := Convert(objects, snapshot, "metallb-system", now)
		if err != nil {
			t.Fatal(err)
		}
		if result.Lost() != want {
			t.Errorf("%s: lost is %v: %v", file, result.Lost(), result.Notes)
		}
	}
}

// TestAgain: what is wrong is told as well when it has been applied already.
func TestAgain(t *testing.T) {
	objects, snapshot := read(t, "testdata/left-out.yaml")
	first, err := Convert(objects, snapshot, "metallb-system", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range first.Objects() {
		if err := snapshot.Put(o); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Convert(objects, snapshot, "metallb-system", now)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Notes, first.Notes) {
		t.Errorf("it says\n%v\nthen, before that\n%v", again.Notes, first.Notes)
	}
}

var now = metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))

// FuzzConvert: whatever MetalLB's objects are, something comes of them, and what comes is in the words of the API.
func FuzzConvert(f *testing.F) {
	for _, text := range []string{
		"{address-pools: [{name: a, protocol: bgp}], peers: [{}, {}], bgp-communities: {a: b}, bfd-profiles: [{}]}",
		"{apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {name: x}, spec: {passwordSecret: {}, holdTime: 1h, nodeSelectors: [{}]}}",
		"{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, spec: {addresses: [1, x, 192.0.2.0/24]}}",
		"{apiVersion: metallb.io/v1beta1, kind: AddressPool, spec: {protocol: x, bgpAdvertisements: [{}]}}",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: metallb-excludel2}, data: {excludel2.yaml: ']'}}",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: config}, data: {config: 'peers: 1'}}",
		"{kind: 1, apiVersion: 2, metadata: 3, spec: 4}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o := unstructured.Unstructured{}
		if yaml.Unmarshal([]byte(text), &o.Object) != nil {
			return
		}
		result, err := Convert([]unstructured.Unstructured{o, o}, &cluster.Snapshot{}, "metallb-system", now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := result.YAML(); err != nil {
			t.Error(err)
		}
	})
}

func read(t *testing.T, file string) ([]unstructured.Unstructured, *cluster.Snapshot) {
	t.Helper()
	var objects []unstructured.Unstructured
	snapshot := &cluster.Snapshot{}
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
			snapshot.Services = append(snapshot.Services, svc)
		}
	}
	return objects, snapshot
}

func converted(t *testing.T, objects []unstructured.Unstructured, snapshot *cluster.Snapshot) string {
	t.Helper()
	result, err := Convert(objects, snapshot, "metallb-system", now)
	if err != nil {
		t.Fatal(err)
	}
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
	fmt.Fprintf(&b, "# Services that keep their addresses: %d\n", result.Kept)
	return b.String() + string(text)
}
