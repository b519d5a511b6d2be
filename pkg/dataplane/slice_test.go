package dataplane

import (
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// newSlice makes an EndpointSlice of default/web with the port http at 8080; its family is that of the first endpoint.
func newSlice(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{slicePort("http", corev1.ProtocolTCP, 8080)},
		Endpoints:   endpoints,
	}
	if len(endpoints) > 0 && netip.MustParseAddr(endpoints[0].Addresses[0]).Is6() {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	return slice
}

func slicePort(name string, protocol corev1.Protocol, port int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &port}
}

// endpoint makes a ready endpoint on a node; the changes come on top.
func endpoint(addr, node string, changes ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{addr}}
	if node != "" {
		e.NodeName = &node
	}
	for _, change := range changes {
		change(&e)
	}
	return e
}

func conditions(ready, serving, terminating bool) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
}

var (
	unready = conditions(false, false, false)
	leaving = conditions(false, true, true)
	gone    = conditions(false, false, true)
)

func forZones(zones ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, zone := range zones {
			e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: zone})
		}
	}
}

func forNodes(nodes ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, node := range nodes {
			e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: node})
		}
	}
}

func TestSliceOfWhatIsNotUsed(t *testing.T) {
	for what, change := range map[string]func(*discoveryv1.EndpointSlice){
		"of no Service":    func(s *discoveryv1.EndpointSlice) { s.Labels = nil },
		"names":            func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN },
		"headless":         func(s *discoveryv1.EndpointSlice) { s.Labels[corev1.IsHeadlessService] = "" },
		"of another proxy": func(s *discoveryv1.EndpointSlice) { s.Labels[labelProxyName] = "other" },
	} {
		t.Run(what, func(t *testing.T) {
			slice := newSlice(endpoint("10.244.1.1", "n1"))
			change(slice)
			if s, ok := SliceOf(slice); ok {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestSliceOf(t *testing.T) {
	h := unique.Make[string]
	slice := newSlice(
		endpoint("10.244.1.1", "n1"),
		endpoint("010.244.1.2", "", leaving),
		endpoint("10.244.1.3", "n2", forZones("a", "b"), forNodes("n2"), func(e *discoveryv1.Endpoint) { e.Addresses = append(e.Addresses, "10.244.1.9") }),
		discoveryv1.Endpoint{},
		endpoint("fd00::1", "n1"), endpoint("127.0.0.1", "n1"), endpoint("host.example", "n1"),
	)
	slice.Ports = append(slice.Ports,
		discoveryv1.EndpointPort{Port: new(int32(1))}, discoveryv1.EndpointPort{Name: new("all")},
		slicePort("zero", corev1.ProtocolTCP, 0), slicePort("icmp", "ICMP", 1),
		discoveryv1.EndpointPort{Name: new(""), Port: new(int32(53))})
	slice.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-02T03:04:05.5Z"}

	got, ok := SliceOf(slice)
	want := Slice{
		Service: "default/web", Family: IPv4,
		Ports: []SlicePort{{h("http"), TCP, 8080}, {h(""), TCP, 53}},
		Endpoints: []SliceEndpoint{
			{Addr: netip.MustParseAddr("10.244.1.1"), Node: h("n1"), Ready: true, Serving: true},
			{Addr: netip.MustParseAddr("10.244.1.2"), Node: h(""), Serving: true, Terminating: true},
			{
				Addr: netip.MustParseAddr("10.244.1.3"), Node: h("n2"), Ready: true, Serving: true,
				Zones: []unique.Handle[string]{h("a"), h("b")}, Nodes: []unique.Handle[string]{h("n2")},
			},
		},
		Trigger: time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC),
	}
	if diff := cmp.Diff(want, got, exact); !ok || diff != "" {
		t.Errorf("ok %v, -want +got:\n%s", ok, diff)
	}
	slice.Annotations[corev1.EndpointsLastChangeTriggerTime] = "yesterday"
	if got, ok := SliceOf(slice); !ok || !got.Trigger.IsZero() {
		t.Errorf("with a trigger that doesn't parse: ok %v, trigger %v", ok, got.Trigger)
	}
}
