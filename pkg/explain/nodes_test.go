package explain

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
)

// A pod with two addresses is one endpoint to a person.
func TestPodsCountOnce(t *testing.T) {
	node := "node-1"
	slice := func(name string, family discoveryv1.AddressType) discoveryv1.EndpointSlice {
		return discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: family,
			Endpoints:   []discoveryv1.Endpoint{{NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-1", UID: "1"}}},
		}
	}
	s := &cluster.Snapshot{EndpointSlices: []discoveryv1.EndpointSlice{slice("web-4", discoveryv1.AddressTypeIPv4), slice("web-6", discoveryv1.AddressTypeIPv6)}}
	got := endpoints(s, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}})
	if len(got) != 1 || got[0].Serving != 1 || got[0].NotServing != 0 {
		t.Errorf("got %+v, want one that serves", got)
	}
}
