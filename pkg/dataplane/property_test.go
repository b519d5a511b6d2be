package dataplane

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"pgregory.net/rapid"
)

// verify fails unless the Model keeps what it promises to backends.
func verify(t interface{ Fatalf(string, ...any) }, m *Model) {
	taken := map[claim]PortName{}
	for key, ports := range m.Ports {
		if len(ports) == 0 {
			t.Fatalf("%s has an entry without ports", key)
		}
		for _, p := range ports {
			if p.Name.Service != key || len(p.Frontends) == 0 || len(p.Cluster) == 0 && len(p.Local) > 0 || p.Affinity < 0 {
				t.Fatalf("%s: %+v", key, p)
			}
			sorted := slices.IsSortedFunc(p.Frontends, func(a, b Frontend) int {
				return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
			})
			for _, f := range p.Frontends {
				c := claim{f.Addr, f.Port, p.Name.Protocol, p.Family}
				if other, found := taken[c]; found || !sorted || f.Port == 0 || (f.Kind == NodePort) == f.Addr.IsValid() || f.Addr.IsValid() && familyOf(f.Addr) != p.Family {
					t.Fatalf("%s: frontend %+v, also of %v, sorted: %v", key, f, other, sorted)
				}
				taken[c] = p.Name
			}
			for _, set := range [][]Endpoint{p.Cluster, p.Local} {
				for i, e := range set {
					if familyOf(e.Addr.Addr()) != p.Family || e.Addr.Port() == 0 || i > 0 && set[i-1].Addr.Compare(e.Addr) >= 0 {
						t.Fatalf("%s: endpoints %v", key, set)
					}
				}
			}
			for i, r := range p.SourceRanges {
				if r != r.Masked() || r.Bits() <= 0 || familyOf(r.Addr()) != p.Family || i > 0 && (p.SourceRanges[i-1].Overlaps(r) || p.SourceRanges[i-1].Compare(r) >= 0) {
					t.Fatalf("%s: source ranges %v", key, p.SourceRanges)
				}
			}
		}
	}
}

// Whatever happens in whatever order, the Model is that of what is there in the end.
func TestOrderOfEventsMakesNoDifference(t *testing.T) {
	names := rapid.SampledFrom([]string{"a", "b", "c"})
	addrs := rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "10.96.0.1"})
	services := rapid.Custom(func(t *rapid.T) *corev1.Service {
		changes := []func(*corev1.Service){
			created(rapid.IntRange(1, 3).Draw(t, "age")), clusterIPIs(rapid.SampledFrom([]string{"10.96.0.1", "10.96.0.2", "None"}).Draw(t, "cluster IP")),
			balancedAt(rapid.SliceOfN(addrs, 0, 2).Draw(t, "balanced")...), externalIPs(rapid.SliceOfN(addrs, 0, 1).Draw(t, "external")...),
			typed(rapid.SampledFrom([]corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}).Draw(t, "type")),
		}
		for _, change := range []func(*corev1.Service){dualStack, internalLocal, externalLocal, ranges("10.0.0.0/8")} {
			if rapid.Bool().Draw(t, "change") {
				changes = append(changes, change)
			}
		}
		return newService(changes...)
	})
	states := rapid.SampledFrom([]func(*discoveryv1.Endpoint){conditions(true, true, false), unready, leaving, gone})
	endpointSlices := rapid.Custom(func(t *rapid.T) *discoveryv1.EndpointSlice {
		var endpoints []discoveryv1.Endpoint
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			endpoints = append(endpoints, endpoint(fmt.Sprintf("10.244.1.%d", rapid.IntRange(1, 3).Draw(t, "address")),
				rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"), states.Draw(t, "state"), forZones(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone"))))
		}
		slice := newSlice(endpoints...)
		slice.Labels[discoveryv1.LabelServiceName] = names.Draw(t, "service")
		return slice
	})

	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Mode: rapid.SampledFrom([]Mode{Full, LoadBalancer}).Draw(t, "mode"), Node: "n1"}
		served := func(a netip.Addr) bool { return a != netip.MustParseAddr("192.0.2.2") }
		fresh, tracker, m := NewTracker(cfg), NewTracker(cfg), &Model{}
		svcs, slcs := map[string]*corev1.Service{}, map[string]*discoveryv1.EndpointSlice{}
		t.Repeat(map[string]func(*rapid.T){
			"service": func(t *rapid.T) {
				svc := services.Draw(t, "service")
				svc.Name = names.Draw(t, "name")
				svcs[svc.Name] = svc
				setService(tracker, svc)
			},
			"no service": func(t *rapid.T) {
				name := names.Draw(t, "name")
				delete(svcs, name)
				tracker.DeleteService("default/" + name)
			},
			"slice": func(t *rapid.T) {
				name := names.Draw(t, "name")
				slcs[name] = endpointSlices.Draw(t, "slice")
				setSlice(tracker, name, slcs[name])
			},
			"no slice": func(t *rapid.T) {
				name := names.Draw(t, "name")
				delete(slcs, name)
				tracker.DeleteSlice(name)
			},
			"update": func(t *rapid.T) {
				tracker.Update(m)
				verify(t, m)
			},
			"node": func(t *rapid.T) {
				tracker.SetNode(Node{Zone: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone"), Addrs: parsed(rapid.SampledFrom([]string{"10.0.0.1", "172.16.0.1"}).Draw(t, "address"))})
			},
			"served": func(t *rapid.T) {
				ours := rapid.Bool().Draw(t, "ours")
				tracker.SetServed(func(netip.Addr) bool { return ours })
			},
		})
		here := Node{Zone: "a", Addrs: parsed("10.0.0.1")}
		tracker.SetServed(served)
		tracker.SetNode(here)
		tracker.Update(m)
		fresh.SetServed(served)
		fresh.SetNode(here)
		for name, slice := range slcs {
			setSlice(fresh, name, slice)
		}
		for _, svc := range svcs {
			setService(fresh, svc)
		}
		if diff := gocmp.Diff(model(fresh), m, exact); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		if diff := gocmp.Diff(fresh.Conflicts(), tracker.Conflicts(), exact); diff != "" {
			t.Fatalf("conflicts: -want +got:\n%s", diff)
		}
	})
}

// An object that is wrong harms only itself: an older Service next to it keeps what it has, and the Model its promises.
func FuzzUpdate(f *testing.F) {
	f.Add("10.96.0.1", "fd00:96::1", "192.0.2.1", "198.51.100.1", "10.0.0.0/8", "10.244.1.1", "TCP", "http", int32(80), int32(30080), int32(8080), uint32(0))
	f.Add("10.96.0.7", "", "192.0.2.7", "2001:db8::1", " 203.0.113.0/25", "fd00::1", "UDP", "", int32(80), int32(30080), int32(0), uint32(0x1ff))
	f.Add("None", "10.96.0.1", "127.0.0.1", "::ffff:1.2.3.4", "::ffff:0:0/90", "010.0.0.1", "ICMP", "x", int32(-1), int32(65536), int32(65535), uint32(0xfe))
	f.Add("10.96.0.1", "::1", "0.0.0.0", "", "0.0.0.0/0", "fe80::1%eth0", "SCTP", "x", int32(0), int32(0), int32(1), uint32(0x155))

	neighbour := newService(name("neighbour"), created(1), dualStack, clusterIPIs("10.96.0.7"), balancedAt("192.0.2.7"), externalIPs("198.51.100.7"))
	f.Fuzz(func(t *testing.T, first, second, balanced, external, sourceRange, addr, protocol, portName string, port, nodePort, target int32, flags uint32) {
		is := func(bit int) bool { return flags>>bit&1 == 1 }
		svc := newService(created(2), balancedAt(balanced, external), externalIPs(external, second), ranges(sourceRange, balanced+"/32"),
			ports(corev1.ServicePort{Name: portName, Protocol: corev1.Protocol(protocol), Port: port, NodePort: nodePort},
				corev1.ServicePort{Name: "http", Port: 80, NodePort: nodePort}))
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = first, []string{first, second}
		eps := newSlice(endpoint("10.244.1.1", "n1"), discoveryv1.Endpoint{}, endpoint("10.244.1.1", portName, forZones("a", first), leaving))
		eps.Endpoints = append(eps.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: new(is(0))}})
		eps.Ports = []discoveryv1.EndpointPort{{}, {Name: &portName, Port: &target}, slicePort(portName, corev1.Protocol(protocol), target), slicePort("http", "TCP", 1)}
		for bit, change := range []func(){
			1: func() { svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol, "IPv5"} },
			2: func() { svc.Spec.IPFamilies = nil },
			3: func() { externalLocal(svc) },
			4: func() { internalLocal(svc) },
			5: func() { svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
			6: func() { svc.Spec.HealthCheckNodePort = target },
			7: func() { eps.AddressType = discoveryv1.AddressTypeIPv6 },
		} {
			if change != nil && is(bit) {
				change()
			}
		}
		cfg := Config{Mode: LoadBalancer, Node: "n1"}
		if is(8) {
			cfg.Mode = Full
		}
		tracker := NewTracker(cfg)
		tracker.SetNode(Node{Zone: "a"})
		tracker.SetServed(func(netip.Addr) bool { return true })
		setService(tracker, neighbour)
		neighbours := newSlice(endpoint("10.244.7.7", "n1"))
		neighbours.Labels[discoveryv1.LabelServiceName] = "neighbour"
		setSlice(tracker, "default/neighbour", neighbours)
		m := model(tracker)
		before := slices.Clone(m.Ports["default/neighbour"])

		setSlice(tracker, "default/web", eps)
		setService(tracker, svc)
		changed, _ := tracker.Update(m)
		verify(t, m)
		if len(before) == 0 || !slices.Equal(before, m.Ports["default/neighbour"]) || slices.Contains(changed, "default/neighbour") {
			t.Fatalf("the neighbour changed: %v", changed)
		}
		tracker.DeleteService("default/web")
		tracker.DeleteSlice("default/web")
		tracker.Update(m)
		if len(m.Ports) != 1 || len(tracker.services) != 1 {
			t.Fatalf("something is left: %v", m.Ports)
		}
	})
}
