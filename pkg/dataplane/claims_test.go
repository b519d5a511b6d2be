package dataplane

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// holdersOf says which Service has what, and what the Tracker says about the rest.
func holdersOf(t *Tracker, m *Model) string {
	var lines []string
	for _, key := range []string{"default/a", "default/b", "default/c"} {
		if f := frontends(m, key); f != "" {
			lines = append(lines, key+" "+f)
		}
	}
	for _, c := range t.Conflicts() {
		lines = append(lines, c.String())
	}
	return strings.Join(lines, "\n")
}

// service makes a Service with one port, 80, and nothing but a cluster address ending in n.
func bare(service string, age, n int, changes ...func(*corev1.Service)) *corev1.Service {
	changes = append([]func(*corev1.Service){
		name(service), created(age), clusterIPIs(fmt.Sprintf("10.96.0.%d", n)), balancedAt(), ports(corev1.ServicePort{Port: 80}),
	}, changes...)
	return newService(changes...)
}

func TestClaims(t *testing.T) {
	const mend = ": give one of them another address or port"
	nodePort := ports(corev1.ServicePort{Port: 80, NodePort: 30080})
	for what, c := range map[string]struct {
		services []*corev1.Service
		want     string
	}{
		"an address of two: the older has it": {
			[]*corev1.Service{bare("a", 2, 1, balancedAt("192.0.2.1")), bare("b", 1, 2, balancedAt("192.0.2.1"))},
			"default/a /TCP: cluster 10.96.0.1:80\n" +
				"default/b /TCP: cluster 10.96.0.2:80 balanced 192.0.2.1:80\n" +
				"TCP 192.0.2.1:80 of Service default/a belongs to the older Service default/b" + mend,
		},
		"of the same age: the first by name": {
			[]*corev1.Service{bare("b", 1, 2, balancedAt("192.0.2.1")), bare("a", 1, 1, balancedAt("192.0.2.1"))},
			"default/a /TCP: cluster 10.96.0.1:80 balanced 192.0.2.1:80\n" +
				"default/b /TCP: cluster 10.96.0.2:80\n" +
				"TCP 192.0.2.1:80 of Service default/b belongs to the older Service default/a" + mend,
		},
		"another port, another protocol": {
			[]*corev1.Service{
				bare("a", 1, 1, balancedAt("192.0.2.1")), bare("b", 2, 2, balancedAt("192.0.2.1"), ports(corev1.ServicePort{Port: 81})),
				bare("c", 3, 3, balancedAt("192.0.2.1"), ports(corev1.ServicePort{Protocol: "UDP", Port: 80})),
			},
			"default/a /TCP: cluster 10.96.0.1:80 balanced 192.0.2.1:80\n" +
				"default/b /TCP: cluster 10.96.0.2:81 balanced 192.0.2.1:81\n" +
				"default/c /UDP: cluster 10.96.0.3:80 balanced 192.0.2.1:80",
		},
		"a node port, in both families, one conflict": {
			[]*corev1.Service{bare("a", 1, 1, nodePort, dualStack), bare("b", 2, 2, nodePort, func(s *corev1.Service) { dualStack(s); s.Spec.ClusterIPs[1] = "fd00:96::2" })},
			"default/a /TCP: cluster 10.96.0.1:80 node4 30080\n/TCP: cluster [fd00:96::1]:80 node6 30080\n" +
				"default/b /TCP: cluster 10.96.0.2:80\n/TCP: cluster [fd00:96::2]:80\n" +
				"TCP node port 30080 of Service default/b belongs to the older Service default/a: change spec.ports[].nodePort of one of them",
		},
		"an external address that is another's cluster address": {
			[]*corev1.Service{bare("a", 1, 1), bare("b", 2, 2, externalIPs("10.96.0.1"))},
			"default/a /TCP: cluster 10.96.0.1:80\ndefault/b /TCP: cluster 10.96.0.2:80\n" +
				"TCP 10.96.0.1:80 of Service default/b belongs to the older Service default/a" + mend,
		},
		"nothing left": {
			[]*corev1.Service{bare("a", 1, 1), bare("b", 2, 1)},
			"default/a /TCP: cluster 10.96.0.1:80\nTCP 10.96.0.1:80 of Service default/b belongs to the older Service default/a" + mend,
		},
	} {
		t.Run(what, func(t *testing.T) {
			tracker := track(c.services)
			m := model(tracker)
			if got := holdersOf(tracker, m); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestClaimsPassOn(t *testing.T) {
	shared := balancedAt("192.0.2.1")
	tracker := track([]*corev1.Service{bare("a", 1, 1, shared), bare("b", 2, 2, shared), bare("c", 3, 3, shared)})
	m := model(tracker)
	for _, step := range []struct {
		what    string
		do      func()
		changed string
		holder  string
	}{
		{"the second gives it up: the others don't notice", func() { setService(tracker, bare("b", 2, 2)) }, "[]", "a"},
		{"the first goes", func() { tracker.DeleteService("default/a") }, "[default/a default/c]", "c"},
		{"an older one wants it", func() { setService(tracker, bare("b", 2, 2, shared)) }, "[default/b default/c]", "b"},
		{"made anew, it is the youngest", func() { setService(tracker, bare("b", 4, 2, shared)) }, "[default/b default/c]", "c"},
		{"the type of the holder changes", func() { setService(tracker, bare("c", 3, 3, shared, typed(corev1.ServiceTypeNodePort))) }, "[default/b default/c]", "b"},
	} {
		step.do()
		changed, _ := tracker.Update(m)
		if fmt.Sprint(changed) != step.changed {
			t.Errorf("%s: changed %v, want %s", step.what, changed, step.changed)
		}
		for _, s := range []string{"a", "b", "c"} {
			if has := strings.Contains(frontends(m, "default/"+s), "192.0.2.1"); has != (s == step.holder) {
				t.Errorf("%s: %s has the address: %v", step.what, s, has)
			}
		}
	}
	if c := tracker.Conflicts(); c != nil {
		t.Errorf("still in conflict: %v", c)
	}
}

func TestConflictsOfAServiceThatGoes(t *testing.T) {
	tracker := track([]*corev1.Service{bare("a", 1, 1), bare("b", 2, 1)})
	model(tracker)
	tracker.DeleteService("default/b")
	if c := tracker.Conflicts(); len(c) != 1 {
		t.Errorf("before the Update: %v", c)
	}
	model(tracker)
	if c := tracker.Conflicts(); len(c) != 0 {
		t.Errorf("after the Update: %v", c)
	}
}
