package v1beta1_test

import (
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func TestAnnotation(t *testing.T) {
	ours, theirs, old := v1beta1.AnnotationPool, v1beta1.AnnotationPoolMetalLB, v1beta1.AnnotationPoolMetalLBUniverse
	for _, tc := range []struct {
		name        string
		annotations map[string]string
		value, key  string
	}{
		{"none", nil, "", ""},
		{"ours", map[string]string{ours: "a"}, "a", ours},
		{"metallb.io", map[string]string{theirs: "b"}, "b", theirs},
		{"metallb.universe.tf", map[string]string{old: "c"}, "c", old},
		{"ours wins", map[string]string{ours: "a", theirs: "b", old: "c"}, "a", ours},
		{"metallb.io wins over metallb.universe.tf", map[string]string{theirs: "b", old: "c"}, "b", theirs},
		{"ours wins although it is empty", map[string]string{ours: "", theirs: "b"}, "", ours},
		{"another one doesn't count", map[string]string{v1beta1.AnnotationShareKey: "k", "example.com/address-pool": "x"}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			value, key, ok := v1beta1.Annotation(tc.annotations, v1beta1.AnnotationPool)
			if value != tc.value || key != tc.key || ok != (tc.key != "") {
				t.Errorf("got %q from %q (%t), want %q from %q", value, key, ok, tc.value, tc.key)
			}
		})
	}
}
