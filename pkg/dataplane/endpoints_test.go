package dataplane

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// track returns a Tracker in Full mode on node n1 in zone a that knows the Services and slices. Slices get names in their order.
func track(services []*corev1.Service, endpointSlices ...*discoveryv1.EndpointSlice) *Tracker {
	t := NewTracker(Config{Mode: Full, Node: "n1", Class: "steelyard.io/lb"})
	t.SetNode(Node{Zone: "a"})
	for _, svc := range services {
		setService(t, svc)
	}
	for i, slice := range endpointSlices {
		setSlice(t, fmt.Sprintf("slice-%d", i), slice)
	}
	return t
}

func setService(t *Tracker, svc *corev1.Service) {
	key := svc.Namespace + "/" + svc.Name
	if s, ok := ServiceOf(svc); ok {
		t.SetService(key, s)
	} else {
		t.DeleteService(key)
	}
}

func setSlice(t *Tracker, key string, slice *discoveryv1.EndpointSlice) {
	if s, ok := SliceOf(slice); ok {
		t.SetSlice(key, s)
	} else {
		t.DeleteSlice(key)
	}
}

// model returns the Model of what the Tracker knows.
func model(t *Tracker) *Model {
	m := &Model{}
	t.Update(m)
	return m
}

// list writes endpoints: without the prefix 10.244., and with a * on this node.
func list(endpoints []Endpoint) string {
	var out []string
	for _, e := range endpoints {
		text := strings.TrimPrefix(e.Addr.String(), "10.244.")
		if e.Local {
			text += "*"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestEndpoints(t *testing.T) {
	local := []*corev1.Service{newService(externalLocal)}
	of := func(port string, protocol corev1.Protocol, number int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		slice := newSlice(endpoints...)
		slice.Ports = []discoveryv1.EndpointPort{slicePort(port, protocol, number)}
		return slice
	}
	for what, c := range map[string]struct {
		slices         []*discoveryv1.EndpointSlice
		cluster, local string
	}{
		"none": {nil, "", ""},
		"ready, here and there": {
			[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.2.1", "n2"), endpoint("10.244.1.1", "n1"))}, "1.1:8080* 2.1:8080", "1.1:8080*",
		},
		"no node": {[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", ""))}, "1.1:8080", ""},
		"two slices, another port number": {
			[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1")), of("http", "TCP", 9090, endpoint("10.244.1.2", "n1"))},
			"1.1:8080* 1.2:9090*", "1.1:8080* 1.2:9090*",
		},
		"another port, another protocol": {
			[]*discoveryv1.EndpointSlice{of("https", "TCP", 8080, endpoint("10.244.1.1", "n1")), of("http", "UDP", 8080, endpoint("10.244.1.1", "n1"))}, "", "",
		},
		"another family":               {[]*discoveryv1.EndpointSlice{newSlice(endpoint("fd00::1", "n1"))}, "", ""},
		"sorted as numbers":            {[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.10", ""), endpoint("10.244.1.9", ""))}, "1.9:8080 1.10:8080", ""},
		"unready":                      {[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1", unready))}, "", ""},
		"terminates, serves no more":   {[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1", gone))}, "", ""},
		"only terminating ones":        {[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1", leaving), endpoint("10.244.2.1", "n2", leaving))}, "1.1:8080* 2.1:8080", "1.1:8080*"},
		"a terminating one, one ready": {[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1", leaving), endpoint("10.244.1.2", "n1"))}, "1.2:8080*", "1.2:8080*"},
		"terminating here, ready there: each set has its own fallback": {
			[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1", leaving), endpoint("10.244.2.1", "n2"))}, "2.1:8080", "1.1:8080*",
		},
		"publishNotReadyAddresses: terminating and ready": {
			[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1", conditions(true, false, true)), endpoint("10.244.1.2", "n1", leaving))}, "1.1:8080*", "1.1:8080*",
		},
		"twice in a slice, and in another": {
			[]*discoveryv1.EndpointSlice{newSlice(endpoint("10.244.1.1", "n1"), endpoint("10.244.1.1", "n1")), newSlice(endpoint("10.244.1.1", "n1"))}, "1.1:8080*", "1.1:8080*",
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := model(track(local, c.slices...)).Ports["default/web"][0]
			if list(p.Cluster) != c.cluster || list(p.Local) != c.local {
				t.Errorf("got %q, local %q; want %q, local %q", list(p.Cluster), list(p.Local), c.cluster, c.local)
			}
		})
	}
}

// An address is in two slices while it moves, or while its last pod terminates and a new one has it already.
func TestEndpointInTwoSlices(t *testing.T) {
	for what, c := range map[string]struct {
		better, worse discoveryv1.Endpoint
		want          string
	}{
		"ready, not ready":      {endpoint("10.244.1.1", "n1"), endpoint("10.244.1.1", "n2", unready), "1.1:8080*"},
		"ready, terminating":    {endpoint("10.244.1.1", "n1"), endpoint("10.244.1.1", "n2", leaving), "1.1:8080*"},
		"unready, terminating":  {endpoint("10.244.1.1", "n1", unready), endpoint("10.244.1.1", "n2", conditions(true, true, true)), ""},
		"terminating, finished": {endpoint("10.244.1.1", "n1", leaving), endpoint("10.244.1.1", "n2", gone), "1.1:8080*"},
	} {
		t.Run(what, func(t *testing.T) {
			for _, order := range [][]*discoveryv1.EndpointSlice{{newSlice(c.better), newSlice(c.worse)}, {newSlice(c.worse), newSlice(c.better)}} {
				if got := list(model(track([]*corev1.Service{newService()}, order...)).Ports["default/web"][0].Cluster); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}

	tracker := track([]*corev1.Service{newService()}, newSlice(endpoint("10.244.1.1", "n1")), newSlice(endpoint("10.244.1.1", "n1", leaving)))
	m := model(tracker)
	for _, c := range []struct{ goes, want string }{{"slice-0", "1.1:8080*"}, {"slice-1", ""}} {
		tracker.DeleteSlice(c.goes)
		tracker.Update(m)
		if got := list(m.Ports["default/web"][0].Cluster); got != c.want {
			t.Errorf("after %s went: got %q, want %q", c.goes, got, c.want)
		}
	}
}

func TestTopology(t *testing.T) {
	one := func(changes ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
		return endpoint("10.244.1.1", "n1", changes...)
	}
	two := func(changes ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
		return endpoint("10.244.2.1", "n2", changes...)
	}
	for what, c := range map[string]struct {
		endpoints []discoveryv1.Endpoint
		cluster   string
		local     string
	}{
		"no hints":            {[]discoveryv1.Endpoint{one(), two()}, "1.1:8080* 2.1:8080", "1.1:8080*"},
		"this zone":           {[]discoveryv1.Endpoint{one(forZones("b")), two(forZones("a"))}, "2.1:8080", "1.1:8080*"},
		"two zones":           {[]discoveryv1.Endpoint{one(forZones("a", "b")), two(forZones("b"))}, "1.1:8080*", "1.1:8080*"},
		"no hint for a zone":  {[]discoveryv1.Endpoint{one(forZones("b")), two(forZones("c"))}, "1.1:8080* 2.1:8080", "1.1:8080*"},
		"one without a hint":  {[]discoveryv1.Endpoint{one(), two(forZones("a"))}, "1.1:8080* 2.1:8080", "1.1:8080*"},
		"empty hints":         {[]discoveryv1.Endpoint{one(forZones()), two(forZones("a"))}, "1.1:8080* 2.1:8080", "1.1:8080*"},
		"this node":           {[]discoveryv1.Endpoint{one(forNodes("n1")), two(forNodes("n2"))}, "1.1:8080*", "1.1:8080*"},
		"node before zone":    {[]discoveryv1.Endpoint{one(forNodes("n2"), forZones("a")), two(forNodes("n1"), forZones("b"))}, "2.1:8080", "1.1:8080*"},
		"no node: zone":       {[]discoveryv1.Endpoint{one(forNodes("n3"), forZones("a")), two(forNodes("n2"), forZones("b"))}, "1.1:8080*", "1.1:8080*"},
		"some nodes: zone":    {[]discoveryv1.Endpoint{one(forZones("b")), two(forNodes("n1"), forZones("a"))}, "2.1:8080", "1.1:8080*"},
		"only ready ones say": {[]discoveryv1.Endpoint{one(unready), two(forZones("a"))}, "2.1:8080", ""},
		"the hinted one unready": {
			[]discoveryv1.Endpoint{one(forZones("a"), unready), two(forZones("b"))}, "2.1:8080", "",
		},
		"the fallback has no hints": {
			[]discoveryv1.Endpoint{one(forZones("b"), leaving), two(forZones("a"), leaving)}, "1.1:8080* 2.1:8080", "1.1:8080*",
		},
		"terminating here, hinted there": {
			[]discoveryv1.Endpoint{one(forZones("a"), leaving), two(forZones("a"))}, "2.1:8080", "1.1:8080*",
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := model(track([]*corev1.Service{newService(externalLocal)}, newSlice(c.endpoints...))).Ports["default/web"][0]
			if list(p.Cluster) != c.cluster || list(p.Local) != c.local {
				t.Errorf("got %q, local %q; want %q, local %q", list(p.Cluster), list(p.Local), c.cluster, c.local)
			}
		})
	}
}

func TestTopologyFollowsTheNode(t *testing.T) {
	tracker := track([]*corev1.Service{newService()}, newSlice(endpoint("10.244.1.1", "n1", forZones("a")), endpoint("10.244.2.1", "n2", forZones("b"))))
	m := model(tracker)
	for _, c := range []struct{ zone, want string }{{"b", "2.1:8080"}, {"", "1.1:8080* 2.1:8080"}, {"a", "1.1:8080*"}} {
		tracker.SetNode(Node{Zone: c.zone})
		changed, host := tracker.Update(m)
		if got := list(m.Ports["default/web"][0].Cluster); got != c.want || len(changed) != 1 || host {
			t.Errorf("zone %q: got %q, want %q; changed %v, host %v", c.zone, got, c.want, changed, host)
		}
	}
	tracker.SetNode(Node{Zone: "a", Deleting: true})
	if changed, host := tracker.Update(m); len(changed) > 0 || host {
		t.Errorf("a change of the node that matters to none changed %v, host %v", changed, host)
	}
}

func TestNamelessNodeHasNoLocalEndpoints(t *testing.T) {
	tracker := NewTracker(Config{Mode: Full})
	setService(tracker, newService(externalLocal))
	setSlice(tracker, "s", newSlice(endpoint("10.244.1.1", "")))
	if p := model(tracker).Ports["default/web"][0]; list(p.Cluster) != "1.1:8080" || len(p.Local) > 0 {
		t.Errorf("got %q, local %q", list(p.Cluster), list(p.Local))
	}
}

func TestServing(t *testing.T) {
	udp := newService(ports(corev1.ServicePort{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}, corev1.ServicePort{Name: "http", Port: 80}), internalLocal)
	slice := newSlice(
		endpoint("10.244.1.1", "n1"), endpoint("10.244.2.1", "n2", forZones("b")), endpoint("10.244.1.2", "n1", leaving),
		endpoint("10.244.1.3", "n1", gone), endpoint("10.244.1.4", "n1", unready), endpoint("10.244.1.5", "n1", conditions(true, false, false)))
	slice.Ports = append(slice.Ports, slicePort("dns", corev1.ProtocolUDP, 5353))
	p := model(track([]*corev1.Service{udp}, slice)).Ports["default/web"]
	want := "[10.244.1.1:5353 10.244.1.2:5353 10.244.1.5:5353 10.244.2.1:5353]"
	if got := fmt.Sprint(p[0].Serving); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p[1].Serving != nil {
		t.Errorf("a TCP port has %v", p[1].Serving)
	}
}

func TestNodesThatAreDown(t *testing.T) {
	key := newService().Namespace + "/" + newService().Name
	here, there, elsewhere := endpoint("10.244.1.1", "n1"), endpoint("10.244.2.1", "n2"), endpoint("10.244.3.1", "n3")
	unready := endpoint("10.244.1.1", "n1", conditions(false, false, false))
	for what, c := range map[string]struct {
		endpoints []discoveryv1.Endpoint
		down      []string
		want      string
	}{
		"none":                       {[]discoveryv1.Endpoint{here, there}, nil, "1.1:8080* 2.1:8080"},
		"one of two":                 {[]discoveryv1.Endpoint{here, there}, []string{"n2"}, "1.1:8080*"},
		"all, so that nothing helps": {[]discoveryv1.Endpoint{there, elsewhere}, []string{"n2", "n3"}, "2.1:8080 3.1:8080"},
		"the rest is not ready":      {[]discoveryv1.Endpoint{unready, there}, []string{"n2"}, "2.1:8080"},
		"another node":               {[]discoveryv1.Endpoint{here, there}, []string{"n3"}, "1.1:8080* 2.1:8080"},
	} {
		t.Run(what, func(t *testing.T) {
			tr := track([]*corev1.Service{newService()}, newSlice(c.endpoints...))
			m := model(tr)
			before := list(m.Ports[key][0].Cluster)
			tr.SetDown(c.down)
			tr.Update(m)
			if got := list(m.Ports[key][0].Cluster); got != c.want {
				t.Errorf("%s serve, want %s", got, c.want)
			}
			tr.SetDown(nil)
			tr.Update(m)
			if got := list(m.Ports[key][0].Cluster); got != before {
				t.Errorf("%s serve when all are up again, want %s", got, before)
			}
		})
	}
}
