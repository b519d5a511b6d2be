package dataplane

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// frontends writes the frontends of all ports of a Service, a line each.
func frontends(m *Model, key string) string {
	var lines []string
	for _, p := range m.Ports[key] {
		line := fmt.Sprintf("%s/%s:", p.Name.Port, p.Name.Protocol)
		for _, f := range p.Frontends {
			kind := map[Kind]string{ClusterIP: "cluster", NodePort: "node", ExternalIP: "external", LoadBalancerIP: "balanced"}[f.Kind]
			if f.Kind == NodePort {
				line += fmt.Sprintf(" %s%d %d", kind, p.Family, f.Port)
			} else {
				line += fmt.Sprintf(" %s %s", kind, netip.AddrPortFrom(f.Addr, f.Port))
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestFrontends(t *testing.T) {
	served := func(addr netip.Addr) bool { return addr != netip.MustParseAddr("192.0.2.9") }
	for what, c := range map[string]struct {
		mode    Mode
		service *corev1.Service
		want    string
	}{
		"all kinds": {
			Full, newService(externalIPs("198.51.100.1"), balancedAt("192.0.2.2", "192.0.2.1")),
			"http/TCP: cluster 10.96.0.1:80 node4 30080 external 198.51.100.1:80 balanced 192.0.2.1:80 balanced 192.0.2.2:80",
		},
		"both families": {
			Full, newService(dualStack, externalIPs("2001:db8:1::1"), balancedAt("192.0.2.1", "2001:db8::1")),
			"http/TCP: cluster 10.96.0.1:80 node4 30080 balanced 192.0.2.1:80\n" +
				"http/TCP: cluster [fd00:96::1]:80 node6 30080 external [2001:db8:1::1]:80 balanced [2001:db8::1]:80",
		},
		"a family without a cluster address": {
			Full, newService(balancedAt("192.0.2.1", "2001:db8::1")), "http/TCP: cluster 10.96.0.1:80 node4 30080 balanced 192.0.2.1:80",
		},
		"one number, three protocols": {
			Full, newService(typed(corev1.ServiceTypeClusterIP), ports(corev1.ServicePort{Name: "a", Protocol: "TCP", Port: 53},
				corev1.ServicePort{Name: "b", Protocol: "UDP", Port: 53}, corev1.ServicePort{Name: "c", Protocol: "SCTP", Port: 53})),
			"a/TCP: cluster 10.96.0.1:53\nb/UDP: cluster 10.96.0.1:53\nc/SCTP: cluster 10.96.0.1:53",
		},
		"without node ports": {
			Full, newService(ports(corev1.ServicePort{Port: 80})), "/TCP: cluster 10.96.0.1:80 balanced 192.0.2.1:80",
		},
		"another's class": {Full, newService(class("other/lb")), "http/TCP: cluster 10.96.0.1:80 node4 30080 balanced 192.0.2.1:80"},
		"an external address that is the balanced one, which has source ranges": {
			Full, newService(externalIPs("192.0.2.1"), ranges("10.0.0.0/8")), "http/TCP: cluster 10.96.0.1:80 node4 30080 balanced 192.0.2.1:80",
		},
		"load balancer only": {
			LoadBalancer, newService(externalIPs("198.51.100.1"), balancedAt("192.0.2.1", "192.0.2.9")), "http/TCP: balanced 192.0.2.1:80",
		},
		"load balancer only, our class":       {LoadBalancer, newService(class("steelyard.io/lb")), "http/TCP: balanced 192.0.2.1:80"},
		"load balancer only, another's class": {LoadBalancer, newService(class("other/lb")), ""},
		"load balancer only, no such address": {LoadBalancer, newService(balancedAt()), ""},
		"off":                                 {Off, newService(), ""},
	} {
		t.Run(what, func(t *testing.T) {
			tracker := NewTracker(Config{Mode: c.mode, Node: "n1", Class: "steelyard.io/lb"})
			tracker.SetServed(served)
			setService(tracker, c.service)
			m := model(tracker)
			if got := frontends(m, "default/web"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if _, there := m.Ports["default/web"]; there != (c.want != "") {
				t.Errorf("in the Model: %v", there)
			}
		})
	}
}

func TestPolicies(t *testing.T) {
	pure := newService(typed(corev1.ServiceTypeClusterIP), externalLocal)
	for what, c := range map[string]struct {
		mode               Mode
		service            *corev1.Service
		internal, external bool
		local              string
	}{
		"Cluster":                              {Full, newService(), false, false, ""},
		"internal":                             {Full, newService(internalLocal), true, false, "1.1:8080*"},
		"external":                             {Full, newService(externalLocal), false, true, "1.1:8080*"},
		"external, but there is no way in":     {Full, pure, false, false, ""},
		"external, by an external address":     {Full, newService(typed(corev1.ServiceTypeClusterIP), externalLocal, externalIPs("198.51.100.1")), false, true, "1.1:8080*"},
		"load balancer only: nothing internal": {LoadBalancer, newService(internalLocal), false, false, ""},
		"load balancer only: external":         {LoadBalancer, newService(internalLocal, externalLocal), false, true, "1.1:8080*"},
	} {
		t.Run(what, func(t *testing.T) {
			tracker := NewTracker(Config{Mode: c.mode, Node: "n1"})
			tracker.SetServed(func(netip.Addr) bool { return true })
			setService(tracker, c.service)
			setSlice(tracker, "s", newSlice(endpoint("10.244.1.1", "n1"), endpoint("10.244.2.1", "n2")))
			p := model(tracker).Ports["default/web"][0]
			if p.InternalLocal != c.internal || p.ExternalLocal != c.external || list(p.Local) != c.local || list(p.Cluster) != "1.1:8080* 2.1:8080" {
				t.Errorf("internal %v, external %v, local %q, cluster %q", p.InternalLocal, p.ExternalLocal, list(p.Local), list(p.Cluster))
			}
		})
	}
}

func TestSourceRanges(t *testing.T) {
	for what, c := range map[string]struct {
		ranges []string
		v4, v6 string
		own    bool
	}{
		"none":                      {nil, "[]", "[]", false},
		"of both":                   {[]string{"2001:db8::/32", "10.0.0.0/8"}, "[10.0.0.0/8]", "[2001:db8::/32]", false},
		"of one: the other is free": {[]string{"2001:db8::/32"}, "[]", "[2001:db8::/32]", false},
		"everybody":                 {[]string{"10.0.0.0/8", "0.0.0.0/0", "::/0"}, "[]", "[]", false},
		"everybody, in halves":      {[]string{"128.0.0.0/1", "0.0.0.0/1"}, "[0.0.0.0/1 128.0.0.0/1]", "[]", true},
		"this node's":               {[]string{"172.16.1.0/24"}, "[172.16.1.0/24]", "[]", true},
		"nothing that parses":       {[]string{"office"}, "[]", "[]", false},
	} {
		t.Run(what, func(t *testing.T) {
			tracker := track([]*corev1.Service{newService(dualStack, balancedAt("192.0.2.1", "2001:db8:1::1"), ranges(c.ranges...))})
			tracker.SetNode(Node{Addrs: []netip.Addr{netip.MustParseAddr("172.16.1.1")}})
			p := model(tracker).Ports["default/web"]
			if v4, v6 := fmt.Sprint(p[0].SourceRanges), fmt.Sprint(p[1].SourceRanges); v4 != c.v4 || v6 != c.v6 || p[0].OwnSource != c.own || p[1].OwnSource {
				t.Errorf("got %s and %s, own source %v and %v", v4, v6, p[0].OwnSource, p[1].OwnSource)
			}
		})
	}
	if p := model(track([]*corev1.Service{newService(balancedAt(), ranges("10.0.0.0/8"))})).Ports["default/web"][0]; p.SourceRanges != nil {
		t.Errorf("without a load-balancer address there is nothing to restrict, got %v", p.SourceRanges)
	}
}

func TestAffinity(t *testing.T) {
	svc := newService()
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	if got := model(track([]*corev1.Service{svc})).Ports["default/web"][0].Affinity; got != 3*time.Hour {
		t.Errorf("got %v", got)
	}
}

func TestHealthChecks(t *testing.T) {
	two := newService(externalLocal, dualStack, ports(corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "https", Port: 443}))
	slice := newSlice(endpoint("10.244.1.1", "n1"), endpoint("10.244.1.2", "n1", leaving), endpoint("10.244.2.1", "n2"))
	slice.Ports = append(slice.Ports, slicePort("https", "TCP", 8443), slicePort("other", "TCP", 1))
	v6 := newSlice(endpoint("fd00::1", "n1"))
	for what, c := range map[string]struct {
		mode    Mode
		service *corev1.Service
		slices  []*discoveryv1.EndpointSlice
		want    map[string]HealthCheck
	}{
		"two ports, both families, one ready pod here": {Full, two, []*discoveryv1.EndpointSlice{slice, v6}, map[string]HealthCheck{"default/web": {32000, 1}}},
		"a family that the Service doesn't have":       {Full, newService(externalLocal), []*discoveryv1.EndpointSlice{v6}, map[string]HealthCheck{"default/web": {32000, 0}}},
		"none here":                                    {Full, two, nil, map[string]HealthCheck{"default/web": {32000, 0}}},
		"policy Cluster":                               {Full, newService(), []*discoveryv1.EndpointSlice{slice}, map[string]HealthCheck{}},
		"not a load balancer":                          {Full, newService(externalLocal, typed(corev1.ServiceTypeNodePort)), []*discoveryv1.EndpointSlice{slice}, map[string]HealthCheck{}},
		"the cluster's proxy has node ports":           {LoadBalancer, newService(externalLocal), []*discoveryv1.EndpointSlice{slice}, map[string]HealthCheck{}},
	} {
		t.Run(what, func(t *testing.T) {
			tracker := NewTracker(Config{Mode: c.mode, Node: "n1"})
			tracker.SetServed(func(netip.Addr) bool { return true })
			setService(tracker, c.service)
			for i, s := range c.slices {
				setSlice(tracker, fmt.Sprint(i), s)
			}
			if got := model(tracker).HealthChecks; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// What happens to a Service, and what Update says about it.
func TestUpdate(t *testing.T) {
	tracker := track([]*corev1.Service{newService(), newService(name("other"), clusterIPIs("10.96.0.2"), balancedAt(), typed(corev1.ServiceTypeClusterIP))})
	m := &Model{}
	ready, both := newSlice(endpoint("10.244.1.1", "n1")), newSlice(endpoint("10.244.1.1", "n1"), endpoint("10.244.1.2", "n1", unready))
	moved := newSlice(endpoint("10.244.1.1", "n1"))
	moved.Labels[discoveryv1.LabelServiceName] = "other"
	for _, step := range []struct {
		what    string
		do      func()
		changed string
	}{
		{"start", func() {}, "[default/other default/web]"},
		{"nothing", func() {}, "[]"},
		{"the same Service", func() { setService(tracker, newService()) }, "[]"},
		{"a slice", func() { setSlice(tracker, "s", ready) }, "[default/web]"},
		{"the same slice", func() { setSlice(tracker, "s", ready) }, "[]"},
		{"an endpoint that nobody uses", func() { setSlice(tracker, "s", both) }, "[]"},
		{"there and back", func() { tracker.DeleteSlice("s"); setSlice(tracker, "s", ready) }, "[]"},
		{"the slice becomes another's", func() { setSlice(tracker, "s", moved) }, "[default/other default/web]"},
		{"the slice becomes headless", func() { moved.Labels[corev1.IsHeadlessService] = ""; setSlice(tracker, "s", moved) }, "[default/other]"},
		{"a slice of nobody", func() {
			moved.Labels = map[string]string{discoveryv1.LabelServiceName: "nobody"}
			setSlice(tracker, "n", moved)
		}, "[]"},
		{"NodePort", func() { setService(tracker, newService(typed(corev1.ServiceTypeNodePort))) }, "[default/web]"},
		{"ExternalName", func() { setService(tracker, newService(typed(corev1.ServiceTypeExternalName))) }, "[default/web]"},
		{"and again", func() { setService(tracker, newService(typed(corev1.ServiceTypeExternalName))) }, "[]"},
		{"deleted", func() { tracker.DeleteService("default/other"); tracker.DeleteSlice("n") }, "[default/other]"},
		{"deleted again", func() { tracker.DeleteService("default/other"); tracker.DeleteSlice("s") }, "[]"},
	} {
		step.do()
		changed, host := tracker.Update(m)
		if got := fmt.Sprint(changed); got != step.changed || host {
			t.Errorf("%s: changed %s, host %v; want %s", step.what, got, host, step.changed)
		}
	}
	if n := len(tracker.services) + len(tracker.slices) + len(tracker.holders) + len(tracker.contested) + len(m.Ports) + len(m.HealthChecks); n != 0 {
		t.Errorf("something is left: %+v, %+v", tracker, m)
	}
}

func TestUpdateKeepsPortsThatDoNotChange(t *testing.T) {
	two := ports(corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "https", Port: 443})
	tracker := track([]*corev1.Service{newService(two)})
	m := model(tracker)
	before := slices.Clone(m.Ports["default/web"])
	setSlice(tracker, "s", newSlice(endpoint("10.244.1.1", "n1")))
	tracker.Update(m)
	if after := m.Ports["default/web"]; after[0] == before[0] || after[1] != before[1] || len(before[0].Cluster) != 0 {
		t.Errorf("before %v, after %v", before, after)
	}
}

func TestServedChanges(t *testing.T) {
	tracker := NewTracker(Config{Mode: LoadBalancer, Node: "n1"})
	setService(tracker, newService())
	m := model(tracker)
	for _, ours := range []bool{true, false} {
		tracker.SetServed(func(netip.Addr) bool { return ours })
		if changed, _ := tracker.Update(m); len(changed) != 1 || len(m.Ports) == 1 != ours {
			t.Errorf("ours %v: changed %v, ports %v", ours, changed, m.Ports)
		}
	}
}

func TestTriggers(t *testing.T) {
	tracker := track([]*corev1.Service{newService()})
	m := model(tracker)
	set := func(trigger string, endpoints ...discoveryv1.Endpoint) {
		slice := newSlice(endpoints...)
		slice.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: trigger}
		setSlice(tracker, "s", slice)
	}
	set("2026-01-01T00:00:01Z", endpoint("10.244.1.1", "n1", unready))
	tracker.Update(m) // changes nothing here
	set("2026-01-01T00:00:02Z", endpoint("10.244.1.1", "n1"))
	set("2026-01-01T00:00:03Z", endpoint("10.244.1.1", "n1"), endpoint("10.244.1.2", "n1"))
	tracker.Update(m)
	if got := fmt.Sprint(tracker.Triggers()); got != "[2026-01-01 00:00:02 +0000 UTC 2026-01-01 00:00:03 +0000 UTC]" {
		t.Errorf("got %s", got)
	}
	if got := tracker.Triggers(); got != nil {
		t.Errorf("told twice: %v", got)
	}
}
