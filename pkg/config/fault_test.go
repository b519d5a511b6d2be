package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConditions(t *testing.T) {
	now := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	faults := []Fault{
		{KindIPAddressPool, "bad", "spec.addresses[0]", ConditionValid, ReasonMalformedRange, "write a", false},
		{KindIPAddressPool, "bad", "spec.addresses[1]", ConditionValid, ReasonOverlappingPools, "write b", false},
		{KindIPAddressPool, "warned", "spec.addresses", ConditionNodeAddressInPool, ReasonNodeAddressInPool, "write c", true},
		{KindBFDProfile, "warned", "spec.echoMode", ConditionValid, ReasonEchoNotUsed, "write e", true},
		{KindBFDProfile, "both", "spec.echoMode", ConditionValid, ReasonEchoNotUsed, "write f", true},
		{KindBFDProfile, "both", "spec.minimumTtl", ConditionValid, ReasonInvalidValue, "write g", false},
		{KindBFDProfile, "both", "spec.echoInterval", ConditionValid, ReasonEchoNotUsed, "write h", true},
		{KindL2Advertisement, "lonely", "spec.nodeSelectors", ConditionValid, ReasonNoNodeSelected, "write d", false},
	}
	for _, tc := range []struct {
		name, kind, object string
		want               []string // type=status reason message
	}{
		{"good pool", KindIPAddressPool, "good", []string{"Valid=True Accepted ", "Overlap=False Accepted ", "NodeAddressInPool=False Accepted "}},
		{"pool with two faults", KindIPAddressPool, "bad", []string{
			"Valid=False MalformedRange spec.addresses[0]: write a; spec.addresses[1]: write b",
			"Overlap=True OverlappingPools spec.addresses[1]: write b", "NodeAddressInPool=False Accepted "}},
		{"a warning leaves the pool valid", KindIPAddressPool, "warned", []string{
			"Valid=True Accepted ", "Overlap=False Accepted ", "NodeAddressInPool=True NodeAddressInPool spec.addresses: write c"}},
		{"advertisement", KindL2Advertisement, "lonely", []string{"Valid=False NoNodeSelected spec.nodeSelectors: write d"}},
		{"a warning of Valid", KindBFDProfile, "warned", []string{"Valid=True EchoNotUsed spec.echoMode: write e"}},
		{"a fault between warnings", KindBFDProfile, "both", []string{
			"Valid=False InvalidValue spec.echoMode: write f; spec.minimumTtl: write g; spec.echoInterval: write h"}},
		{"an object of another kind with the name of a bad one", KindL2Advertisement, "bad", []string{"Valid=True Accepted "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range Conditions(faults, tc.kind, tc.object, 7, now) {
				got = append(got, fmt.Sprintf("%s=%s %s %s", c.Type, c.Status, c.Reason, c.Message))
				if c.ObservedGeneration != 7 || c.LastTransitionTime != now {
					t.Errorf("%s is of generation %d at %s", c.Type, c.ObservedGeneration, c.LastTransitionTime)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestConditionMessageFits(t *testing.T) {
	for name, message := range map[string]string{"many": "write something else", "long": strings.Repeat("ä", 40000)} {
		t.Run(name, func(t *testing.T) {
			var faults []Fault
			for i := range 512 {
				faults = append(faults, Fault{KindIPAddressPool, "a", fmt.Sprintf("spec.addresses[%d]", i), ConditionValid, ReasonMalformedRange, message, false})
			}
			got := Conditions(faults, KindIPAddressPool, "a", 1, metav1.Now())[0].Message
			if len(got) > 3000 || !utf8.ValidString(got) {
				t.Errorf("the message has %d bytes, valid UTF-8: %t", len(got), utf8.ValidString(got))
			}
			if !strings.HasPrefix(got, "spec.addresses[0]: ") || !strings.HasSuffix(got, " more") {
				t.Errorf("the message is %.40s ... %s", got, got[len(got)-20:])
			}
		})
	}
}

func TestFaultString(t *testing.T) {
	f := Fault{KindIPAddressPool, "a", "spec.addresses[0]", ConditionValid, ReasonMalformedRange, `"x" is no range: write y`, false}
	if got, want := f.String(), `IPAddressPool "a": spec.addresses[0]: "x" is no range: write y`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
