package dataplane

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// load makes a Tracker with n Services of two endpoints, each with a cluster address, a node port and a load-balancer address.
func load(n int) *Tracker {
	t := NewTracker(Config{Mode: Full, Node: "n1"})
	for i := range n {
		svc := newService(name(fmt.Sprintf("svc-%d", i)), clusterIPIs(fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)),
			balancedAt(fmt.Sprintf("192.1.%d.%d", i/250, i%250+1)), ports(corev1.ServicePort{Name: "http", Port: 80, NodePort: int32(20000 + i)}))
		setService(t, svc)
		setSlice(t, "default/"+svc.Name+"-x", sliceFor(i, "n2"))
	}
	return t
}

func sliceFor(i int, node string) *discoveryv1.EndpointSlice {
	slice := newSlice(endpoint(fmt.Sprintf("10.244.%d.%d", i/250, i%250+1), "n1", forZones("a")),
		endpoint(fmt.Sprintf("10.245.%d.%d", i/250, i%250+1), node, forZones("a")))
	slice.Labels[discoveryv1.LabelServiceName] = fmt.Sprintf("svc-%d", i)
	return slice
}

func BenchmarkFull10k(b *testing.B) {
	for b.Loop() {
		model(load(10000))
	}
}

func BenchmarkOneEndpoint(b *testing.B) {
	t := load(10000)
	m := model(t)
	nodes := []string{"n1", "n3"}
	i := 0
	for b.Loop() {
		setSlice(t, "default/svc-77-x", sliceFor(77, nodes[i%2]))
		if changed, _ := t.Update(m); len(changed) != 1 {
			b.Fatalf("changed %v", changed)
		}
		i++
	}
}

func BenchmarkNodeChange(b *testing.B) {
	t := load(10000)
	m := model(t)
	zones := []string{"a", "b"}
	i := 0
	for b.Loop() {
		t.SetNode(Node{Zone: zones[i%2]})
		t.Update(m)
		i++
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// The Tracker and the Model are in the memory of a speaker on every node.
func TestMemory(t *testing.T) {
	before := heap()
	tracker := load(10000)
	m := model(tracker)
	used := int64(heap() - before)
	t.Logf("10,000 Services with 2 endpoints: %.1f MB", float64(used)/1e6)
	if used > 20e6 {
		t.Errorf("10,000 Services with 2 endpoints take %d bytes", used)
	}
	runtime.KeepAlive(tracker)
	runtime.KeepAlive(m)
}
