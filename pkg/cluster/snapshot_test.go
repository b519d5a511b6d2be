package cluster

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func pod(component string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "lb", Name: component, Labels: map[string]string{labelName: "steelyard", labelComponent: component}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Args: args}}},
	}
}

func pool(name string, addresses ...string) *v1beta1.IPAddressPool {
	return &v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1beta1.IPAddressPoolSpec{Addresses: addresses}}
}

func TestPutLeavesCopiesAlone(t *testing.T) {
	before := &Snapshot{}
	for _, p := range []*v1beta1.IPAddressPool{pool("a", "192.0.2.0/24"), pool("b", "198.51.100.0/24")} {
		if err := before.Put(p); err != nil {
			t.Fatal(err)
		}
	}
	after := *before
	for _, p := range []*v1beta1.IPAddressPool{pool("b", "203.0.113.0/24"), pool("c", "2001:db8::/64")} {
		if err := after.Put(p); err != nil {
			t.Fatal(err)
		}
	}
	if len(before.Pools) != 2 || before.Pools[1].Spec.Addresses[0] != "198.51.100.0/24" {
		t.Errorf("the original has become %v", before.Pools)
	}
	if len(after.Pools) != 3 || after.Pools[1].Spec.Addresses[0] != "203.0.113.0/24" || after.Pools[2].Name != "c" {
		t.Errorf("the copy is %v", after.Pools)
	}
}

// TestPutOfAPodThatHasEnded: the kubelet evicts a pod and leaves the object, beside the one that takes its place.
func TestPutOfAPodThatHasEnded(t *testing.T) {
	s := &Snapshot{}
	for _, component := range []string{"speaker", "controller"} {
		evicted := pod(component, "--load-balancer-class=x/y", "--dataplane=full")
		evicted.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}
		if err := s.Put(evicted); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Speakers)+len(s.Controllers) > 0 || s.Namespace != "lb" {
		t.Errorf("speakers %v, controllers %v, in namespace %q", s.Speakers, s.Controllers, s.Namespace)
	}
}

func TestPutOfAForeignKind(t *testing.T) {
	if err := new(Snapshot).Put(&corev1.ConfigMap{}); err == nil {
		t.Error("a ConfigMap was taken")
	}
}

func TestFlags(t *testing.T) {
	for name, test := range map[string]struct {
		pods            []*corev1.Pod
		class, mode     string
		ignore, listens bool
		namespace       string
	}{
		"no pods": {class: v1beta1.DefaultLoadBalancerClass},
		"as installed": {
			pods:  []*corev1.Pod{pod("controller", "--load-balancer-class=example.com/lb"), pod("speaker", "--dataplane=full", "--ignore-exclude-lb=false")},
			class: "example.com/lb", mode: "full", namespace: "lb",
		},
		"classless only": {pods: []*corev1.Pod{pod("controller", "--load-balancer-class=")}, class: "", namespace: "lb"},
		"everything set": {
			pods:  []*corev1.Pod{pod("speaker", "-dataplane=off", "--ignore-exclude-lb=true", "--bgp-listen-port=1790", "--load-balancer-class=x/y")},
			class: "x/y", mode: "off", ignore: true, listens: true, namespace: "lb",
		},
		"the last one counts": {
			pods:  []*corev1.Pod{pod("speaker", "--ignore-exclude-lb=false", "--dataplane=full", "--dataplane=off", "--ignore-exclude-lb")},
			class: v1beta1.DefaultLoadBalancerClass, mode: "off", ignore: true, namespace: "lb",
		},
		"somebody else's pod": {pods: []*corev1.Pod{pod("web", "--load-balancer-class=x/y")}, class: v1beta1.DefaultLoadBalancerClass},
	} {
		s := &Snapshot{}
		for _, p := range test.pods {
			if err := s.Put(p); err != nil {
				t.Fatal(err)
			}
		}
		if s.Class() != test.class || s.Dataplane() != test.mode || s.IgnoresExclude() != test.ignore || s.Listens() != test.listens || s.Namespace != test.namespace {
			t.Errorf("%s: class %q, dataplane %q, ignores the label: %v, listens: %v, namespace %q",
				name, s.Class(), s.Dataplane(), s.IgnoresExclude(), s.Listens(), s.Namespace)
		}
	}
}
