package v1beta1_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// TestSamples admits every object of config/samples, and demands that each file works by itself and that all work together.
func TestSamples(t *testing.T) {
	crds := loadCRDs(t)
	files, err := filepath.Glob("../../../config/samples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	var all config.Resources
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(data, []byte("# ")) {
				t.Error("the file doesn't begin with a comment that says what it is an example of")
			}
			var here config.Resources
			for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
				admitSample(t, crds, document, &here)
			}
			expectNoFaults(t, here)
			all.Pools = append(all.Pools, here.Pools...)
			all.L2Advertisements = append(all.L2Advertisements, here.L2Advertisements...)
		})
	}
	expectNoFaults(t, all)
}

func admitSample(t *testing.T, crds map[string]*crd, document []byte, into *config.Resources) {
	t.Helper()
	object := map[string]any{}
	if err := yaml.Unmarshal(document, &object); err != nil {
		t.Fatal(err)
	}
	kind, _ := object["kind"].(string)
	if kind != "Service" {
		if crds[kind] == nil {
			t.Fatalf("the sample has an object of kind %q, and there is no such CRD", kind)
		}
		if answer := crds[kind].admit(t, integers(object).(map[string]any)); answer != "" {
			t.Errorf("%s: %s", kind, answer)
		}
	}
	switch kind {
	case "IPAddressPool":
		var pool v1beta1.IPAddressPool
		unmarshalStrict(t, document, &pool)
		into.Pools = append(into.Pools, pool)
	case "L2Advertisement":
		var ad v1beta1.L2Advertisement
		unmarshalStrict(t, document, &ad)
		into.L2Advertisements = append(into.L2Advertisements, ad)
	case "Service":
		var service corev1.Service
		unmarshalStrict(t, document, &service)
	}
}

func unmarshalStrict(t *testing.T, document []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(document, into); err != nil {
		t.Fatal(err)
	}
}

func expectNoFaults(t *testing.T, r config.Resources) {
	t.Helper()
	_, faults := config.Parse(r)
	for _, f := range faults {
		t.Error(f)
	}
}
