package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// What is looked at for nothing costs little, but a thousand nodes with a heartbeat each would be looked at all the time (R3 of the
// situations that MetalLB is tested with).
func TestWhatIsWorthALook(t *testing.T) {
	node := func(change func(*corev1.Node)) client.Object {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"rack": "a"}}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		change(n)
		return n
	}
	secret := func(password, label string) client.Object {
		s := newSecret("steelyard", "tor", password)
		s.Labels = map[string]string{"a": label}
		return s
	}
	service := func(message string, status metav1.ConditionStatus, options ...func(*corev1.Service)) client.Object {
		svc := newService("web", options...)
		svc.Status.Conditions = []metav1.Condition{
			{Type: v1beta1.ConditionAnnounced, Status: status, Reason: string(announce.AddressConflict), Message: message},
		}
		return svc
	}
	kept, other := &v1beta1.AddressReservation{}, &v1beta1.AddressReservation{}
	kept.Labels = map[string]string{v1beta1.LabelKept: "true"}
	for name, test := range map[string]struct {
		predicate     predicate.Predicate
		before, after client.Object
		want          bool
	}{
		"a node's heartbeat": {nodeChanged, node(func(*corev1.Node) {}), node(func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.NewTime(time.Now())}}
		}), false},
		"a node's label":         {nodeChanged, node(func(*corev1.Node) {}), node(func(n *corev1.Node) { n.Labels["rack"] = "b" }), true},
		"a node's address":       {nodeChanged, node(func(*corev1.Node) {}), node(func(n *corev1.Node) { n.Status.Addresses[0].Address = "192.0.2.2" }), true},
		"a new node":             {nodeChanged, nil, node(func(*corev1.Node) {}), true},
		"a Secret's label":       {secretChanged, secret("x", "a"), secret("x", "b"), false},
		"a Secret's password":    {secretChanged, secret("x", "a"), secret("y", "a"), true},
		"a new Service":          {conflictChanged, nil, newService("web"), false},
		"a Service's address":    {conflictChanged, newService("web"), newService("web", withStatus("192.0.2.1")), false},
		"a conflict":             {conflictChanged, newService("web"), service("x", metav1.ConditionFalse), true},
		"the same conflict":      {conflictChanged, service("x", metav1.ConditionFalse), service("x", metav1.ConditionFalse, ofClass("x/y")), false},
		"another conflict":       {conflictChanged, service("x", metav1.ConditionFalse), service("y", metav1.ConditionFalse), true},
		"another address of one": {conflictChanged, service("x", metav1.ConditionFalse), service("x", metav1.ConditionFalse, withStatus("192.0.2.1")), true},
		"a conflict that ended":  {conflictChanged, service("x", metav1.ConditionFalse), service("x", metav1.ConditionTrue), true},
		"a Service that is gone": {conflictChanged, newService("web"), nil, false},
		"a conflict that went":   {conflictChanged, service("x", metav1.ConditionFalse), nil, true},
		"kept addresses":         {keptForService, kept, nil, true},
		"a person's reservation": {keptForService, other, nil, false},
	} {
		if got := passes(test.predicate, test.before, test.after); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
