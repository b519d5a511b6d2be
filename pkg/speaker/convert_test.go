package speaker

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func TestServiceOf(t *testing.T) {
	plain := Service{Name: "default/web", Labels: map[string]string{"app": "web"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	with := func(change func(*Service)) Service {
		s := plain
		change(&s)
		return s
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Service)
		class  string
		want   Service
		ours   bool
	}{
		"classless":       {func(*corev1.Service) {}, "steelyard.io/lb", plain, true},
		"our class":       {func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("steelyard.io/lb") }, "steelyard.io/lb", plain, true},
		"another's class": {func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("other/lb") }, "steelyard.io/lb", Service{}, false},
		"a class, and we serve the classless only": {
			func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("other/lb") }, "", Service{}, false},
		"another type": {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, "", Service{}, false},
		"about to go":  {func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) }, "", Service{}, false},
		"policy Local": {
			func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }, "",
			with(func(s *Service) { s.Local = true }), true},
		"shared, in the words of existing manifests": {
			func(s *corev1.Service) {
				s.Annotations = map[string]string{"metallb.universe.tf/allow-shared-ip": "key"}
			}, "",
			with(func(s *Service) { s.Shared = true }), true},
		"host names and nonsense are no addresses": {
			func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "a.example"}, {IP: "nonsense"}, {IP: "::ffff:10.0.0.1"}}
			}, "", plain, true},
		"a condition of ours": {
			func(s *corev1.Service) {
				s.Status.Conditions = []metav1.Condition{{Type: v1beta1.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: "AddressConflict", Message: "taken"}}
			}, "", with(func(s *Service) { s.Complaint, s.ComplaintReason = "taken", announce.AddressConflict }), true},
	} {
		t.Run(name, func(t *testing.T) {
			svc := loadBalancer("web", "10.0.0.1")
			tc.change(svc)
			got, ours := serviceOf("default/web", svc, tc.class)
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" || ours != tc.ours {
				t.Errorf("ours: %v, want %v (-want +got):\n%s", ours, tc.ours, diff)
			}
		})
	}
}

func TestEndpointsOf(t *testing.T) {
	endpoint := func(node string, ready, serving *bool) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving}}
		if node != "" {
			e.NodeName = &node
		}
		return e
	}
	yes, no := new(true), new(false)
	for name, tc := range map[string]struct {
		endpoints []discoveryv1.Endpoint
		want      []string
	}{
		"none":                        {nil, nil},
		"conditions unknown":          {[]discoveryv1.Endpoint{endpoint("a", nil, nil)}, []string{"a"}},
		"ready":                       {[]discoveryv1.Endpoint{endpoint("a", yes, yes)}, []string{"a"}},
		"terminating, still serving":  {[]discoveryv1.Endpoint{endpoint("a", no, yes)}, []string{"a"}},
		"ready, serving denied":       {[]discoveryv1.Endpoint{endpoint("a", yes, no)}, []string{"a"}},
		"not ready":                   {[]discoveryv1.Endpoint{endpoint("a", no, no), endpoint("b", no, nil)}, nil},
		"one ready, one not":          {[]discoveryv1.Endpoint{endpoint("a", no, no), endpoint("a", yes, nil)}, []string{"a"}},
		"several, one without a node": {[]discoveryv1.Endpoint{endpoint("b", nil, nil), endpoint("", nil, nil), endpoint("a", nil, nil)}, []string{"", "a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			slice := &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
				Endpoints:  tc.endpoints,
			}
			got := endpointsOf(slice, "node-a")
			if got.Service != "default/web" || !slices.Equal(got.Serving, tc.want) {
				t.Errorf("got %+v, want %v", got, tc.want)
			}
		})
	}
}

func TestNodeOf(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue}}
	if got := nodeOf(node, "node-a", false); !got.Excluded || !got.NetworkUnavailable {
		t.Errorf("got %+v", got)
	}
	if got := nodeOf(node, "node-a", true); got.Excluded {
		t.Error("the label counts though it is to be ignored")
	}
	node.Status.Conditions[0].Status = corev1.ConditionFalse
	if got := nodeOf(node, "node-a", true); got.NetworkUnavailable {
		t.Error("the network is available")
	}
}

func TestExcludePatterns(t *testing.T) {
	patterns, err := ExcludePatterns(" ^lo$, ^veth ,")
	if err != nil || len(patterns) != 2 || !patterns[1].MatchString("veth12") {
		t.Errorf("got %v, %v", patterns, err)
	}
	if patterns, err := ExcludePatterns(""); err != nil || patterns != nil {
		t.Errorf("none: %v, %v", patterns, err)
	}
	if _, err := ExcludePatterns("^a,("); err == nil {
		t.Error("a malformed expression is accepted")
	}
}
