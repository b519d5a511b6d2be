package v1beta1_test

import (
	"encoding/json"
	"math"
	"path/filepath"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// TestWhatIsAdmittedIsUnderstood: a number that the schema admits and a field can't hold would keep every object of the kind from being read,
// because a list is read as a whole.
func TestWhatIsAdmittedIsUnderstood(t *testing.T) {
	crds := loadCRDs(t)
	for kind, into := range map[string]func() runtime.Object{
		"IPAddressPool":    func() runtime.Object { return new(v1beta1.IPAddressPool) },
		"L2Advertisement":  func() runtime.Object { return new(v1beta1.L2Advertisement) },
		"BGPAdvertisement": func() runtime.Object { return new(v1beta1.BGPAdvertisement) },
		"BGPPeer":          func() runtime.Object { return new(v1beta1.BGPPeer) },
		"BFDProfile":       func() runtime.Object { return new(v1beta1.BFDProfile) },
	} {
		spec := crds[kind].structural.Properties["spec"]
		walkIntegers(spec, nil, func(path []string) {
			for _, n := range []int64{math.MinInt64, math.MinInt32, -1, 0, 1, math.MaxUint8 + 1, math.MaxUint16 + 1, math.MaxInt32 + 1, math.MaxUint32 + 1, math.MaxInt64} {
				object := map[string]any{"apiVersion": "steelyard.io/v1beta1", "kind": kind, "metadata": map[string]any{"name": "x"}, "spec": map[string]any{}}
				mend(object["spec"].(map[string]any), kind)
				set(object["spec"].(map[string]any), path, n)
				if crds[kind].admit(t, object) != "" {
					continue
				}
				text, err := json.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				if err := utiljson.Unmarshal(text, into()); err != nil {
					t.Errorf("%s spec.%s: %d is admitted, but: %v", kind, filepath.Join(path...), n, err)
				}
			}
		})
	}
}

// mend makes a spec of the kind one that is admitted.
func mend(spec map[string]any, kind string) {
	switch kind {
	case "IPAddressPool":
		spec["addresses"] = []any{"192.0.2.0/24"}
	case "BGPPeer":
		spec["myASN"], spec["peerASN"], spec["peerAddress"] = int64(64500), int64(64512), "192.0.2.1"
	}
}

func walkIntegers(s schema.Structural, path []string, f func(path []string)) {
	if s.Type == "integer" {
		f(path)
	}
	for name, property := range s.Properties {
		walkIntegers(property, append(path[:len(path):len(path)], name), f)
	}
	if s.Items != nil {
		walkIntegers(*s.Items, append(path[:len(path):len(path)], "[]"), f)
	}
}

// set sets a field, in a list of one where the path goes through a list.
func set(in map[string]any, path []string, n int64) {
	name, rest := path[0], path[1:]
	if len(rest) == 0 {
		in[name] = n
		return
	}
	inner, _ := in[name].(map[string]any)
	if inner == nil {
		inner = map[string]any{}
	}
	if rest[0] == "[]" {
		in[name], rest = []any{inner}, rest[1:]
	} else {
		in[name] = inner
	}
	set(inner, rest, n)
}
