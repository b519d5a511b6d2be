package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
)

const manyServices = 10_000

// assignMany puts as many Services into the API server as a large cluster has, with the statuses that they have got from the pool.
func (c *testCluster) assignMany(pool *v1beta1.IPAddressPool) {
	allocator := allocatorOf(*pool)
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	for i := range manyServices {
		svc := newService(fmt.Sprint("svc", i))
		svc.APIVersion, svc.Kind = "v1", "Service"
		svc.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(i) * time.Second))
		svc.Status = assign.Decide(svc, class, nil, allocator, now).Status
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(svc)
		if err != nil {
			c.Fatal(err)
		}
		c.api.store("ADDED", "services", client.ObjectKeyFromObject(svc).String(), &unstructured.Unstructured{Object: object})
	}
}

// written counts all writes to the API server.
func (s *apiServer) written() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	writes := map[string]int{}
	for verb, n := range s.used {
		if !slices.Contains([]string{"get", "list", "watch"}, strings.Fields(verb)[0]) {
			writes[verb] = n
		}
	}
	return writes
}

// decided waits until the controller has looked at that many Services.
func (r *replica) decided(c *testCluster, n uint64) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		families, err := r.metrics.Gather()
		if err != nil {
			c.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "steelyard_decision_seconds" && f.Metric[0].Histogram.GetSampleCount() >= n {
				return
			}
		}
	}
	c.Fatalf("the controller has not looked at %d Services", n)
}

// A controller that starts where ten thousand Services have their addresses writes to none of them; and where nothing has changed since
// another one, it writes nothing at all.
func TestRestartWithManyServices(t *testing.T) {
	prod := pool("prod", "10.0.0.0/16")
	c := newCluster(t, prod)
	c.assignMany(prod)
	first := c.start(false)
	c.create(newService("next"))
	c.has("next", "10.0.39.16 True Assigned")
	first.decided(c, manyServices+1)
	c.eventually("counters", func() string { return c.poolStatus("prod") }, "10001 55535 0 0 True")
	first.stop()
	if n := c.api.times("patch services/status"); n != 1 {
		t.Errorf("%d writes to Services, want the one to the new Service", n)
	}

	before := c.api.written()
	second := c.start(false)
	second.decided(c, manyServices+1)
	second.stop()
	if after := c.api.written(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("writes of a controller that has nothing to do: %v, before: %v", after, before)
	}
}

// A controller that starts looks at once at the Services that have something to lose or to win, and at all others when the watch shows them:
// who waits does not stand behind ten thousand that have an address.
func TestRestartLooksFirstAtWhoMatters(t *testing.T) {
	w := newWorld(t, 0, class)
	at := func(hour int, svc *corev1.Service) {
		svc.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(hour) * time.Hour))
		svc.Status = assign.Decide(svc, class, nil, allocatorOf(newPool("prod", "192.0.2.0/24"), newPool("old", "198.51.100.0/24")), now).Status
		if err := w.Create(w.Context(), svc); err != nil {
			t.Fatal(err)
		}
	}
	requesting := func(address string) func(*corev1.Service) { return annotated(v1beta1.AnnotationAddresses, address) }
	at(0, newService("settled", requesting("192.0.2.1")))
	at(1, newService("another's", ofClass("example.com/lb")))
	at(2, newService("moves later", requesting("198.51.100.2")))
	at(1, newService("moves", requesting("198.51.100.1")))
	at(3, newService("waits longer", requesting("203.0.113.1")))
	at(4, newService("a new one waits", requesting("203.0.113.2")))
	if err := w.Create(w.Context(), pool("prod", "192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.pending = nil
	deleted := newService("deleted", withStatus("192.0.2.9"))
	w.configuration.live = ahead{w.store, deleted}
	if _, err := w.configuration.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, j := range w.pending {
		if j.reconciler == reconcile.Reconciler(w.services) {
			names = append(names, j.name.Name)
		}
	}
	want := []string{"deleted", "moves", "moves later", "waits longer", "a new one waits"}
	if !slices.Equal(names, want) {
		t.Errorf("looks at %q first, want %q", names, want)
	}
}

// ahead is an API server that has a Service which the cache does not have.
type ahead struct {
	*store
	service *corev1.Service
}

func (a ahead) List(ctx context.Context, into client.ObjectList, opts ...client.ListOption) error {
	if err := a.store.List(ctx, into, opts...); err != nil {
		return err
	}
	if list, ok := into.(*corev1.ServiceList); ok {
		list.Items = append(list.Items, *a.service)
	}
	return nil
}

// BenchmarkRestart measures how long a controller needs, with ten thousand assigned Services, until it has given a new one its address.
func BenchmarkRestart(b *testing.B) {
	prod := pool("prod", "10.0.0.0/16")
	c := newCluster(b, prod)
	c.assignMany(prod)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("next", i)
		c.create(newService(name))
		r := c.start(false)
		c.eventually("its address", func() string {
			var svc corev1.Service
			if err := c.Get(context.Background(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, &svc); err != nil {
				b.Fatal(err)
			}
			return fmt.Sprint(len(svc.Status.LoadBalancer.Ingress))
		}, "1")
		b.StopTimer()
		r.stop()
		b.StartTimer()
	}
}
