package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// bench is a reconciler of Services whose cache and whose API server need not agree.
type bench struct {
	services
	cache, live client.WithWatch
	recorder    *events.FakeRecorder
	writes      func(*corev1.Service) error // fails writes to a status if not nil
	queue       workqueue.TypedRateLimitingInterface[reconcile.Request]
}

func newBench(t *testing.T, allocator *ipam.Allocator, cached, live []client.Object) *bench {
	b := &bench{recorder: events.NewFakeRecorder(10)}
	b.cache = fake.NewClientBuilder().WithScheme(cluster.Scheme()).WithObjects(cached...).WithStatusSubresource(&corev1.Service{}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
				if b.writes != nil {
					if err := b.writes(o.(*corev1.Service)); err != nil {
						return err
					}
				}
				return c.SubResource(sub).Patch(ctx, o, p, opts...)
			},
		}).Build()
	b.live = fake.NewClientBuilder().WithScheme(cluster.Scheme()).WithObjects(live...).Build()
	b.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	q := &queue{}
	q.Start(context.Background(), b.queue)
	adopted := make(chan struct{})
	close(adopted)
	b.services = services{
		client: b.cache, live: b.live, allocator: allocator, class: class, recorder: b.recorder, now: time.Now,
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), adopted: adopted, waiting: &waiting{queue: q}, counted: func() {},
		counters: newCounters(), snapshot: &atomic.Pointer[snapshot]{},
	}
	b.snapshot.Store(&snapshot{config: &config.Config{}})
	return b
}

func (b *bench) look(t *testing.T, name string) reconcile.Result {
	t.Helper()
	result, err := b.Reconcile(context.Background(), requestOf(name))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func requestOf(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: name}}
}

func TestNothingIsDecidedBeforeTheAdoption(t *testing.T) {
	b := newBench(t, allocatorOf(newPool("p", "192.0.2.0/30")), []client.Object{newService("a")}, nil)
	b.adopted = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Reconcile(ctx, requestOf("a")); err == nil || b.allocator.Holds(requestOf("a").NamespacedName) {
		t.Errorf("decided: %v", err)
	}
}

// A cache that lags behind the list of the adoption does not have a new Service yet, but it is there.
func TestServiceMissingInTheCacheOnly(t *testing.T) {
	allocator := allocatorOf(newPool("p", "192.0.2.0/30"))
	name := requestOf("a").NamespacedName
	allocator.Adopt(name, ipam.Sharing{}, []netip.Addr{netip.MustParseAddr("192.0.2.0")})
	b := newBench(t, allocator, nil, []client.Object{newService("a")})
	b.look(t, "a")
	if !allocator.Holds(name) {
		t.Error("released")
	}
	b.live.Delete(context.Background(), newService("a"))
	b.look(t, "a")
	if allocator.Holds(name) {
		t.Error("not released")
	}
}

// An address stays reserved until the status is without it, and is given to no one before.
func TestAddressIsFreeOnceTheStatusIsWritten(t *testing.T) {
	b := newBench(t, allocatorOf(newPool("p", "192.0.2.0/31")), []client.Object{newService("a"), newService("b")}, nil)
	b.look(t, "a")
	var a corev1.Service
	if err := b.cache.Get(context.Background(), requestOf("a").NamespacedName, &a); err != nil {
		t.Fatal(err)
	}
	annotated("steelyard.io/loadBalancerIPs", "192.0.2.1")(&a)
	if err := b.cache.Update(context.Background(), &a); err != nil {
		t.Fatal(err)
	}
	b.writes = func(svc *corev1.Service) error {
		if svc.Name == "a" {
			return apierrors.NewConflict(schema.GroupResource{Resource: "services"}, "a", nil)
		}
		return nil
	}
	if result := b.look(t, "a"); result.RequeueAfter != staleRetry {
		t.Errorf("after a conflict: %+v", result)
	}
	b.look(t, "b")
	if event := <-b.recorder.Events; !strings.HasPrefix(event, "Warning PoolExhausted") {
		t.Errorf("event %q", event)
	}
	b.writes = nil
	b.look(t, "a")
	if n := b.queue.Len(); n != 1 {
		t.Fatalf("%d requests, want that of b", n)
	}
	b.look(t, "b")
	var waited corev1.Service
	b.cache.Get(context.Background(), requestOf("b").NamespacedName, &waited)
	if got := told(assign.Decision{Status: waited.Status}); got != "192.0.2.0 True Assigned" {
		t.Errorf("b: %s", got)
	}
}

func TestOneEventForAChangeOfReason(t *testing.T) {
	b := newBench(t, allocatorOf(), []client.Object{newService("a")}, nil)
	for range 3 {
		b.look(t, "a")
	}
	if n := len(b.recorder.Events); n != 1 {
		t.Errorf("%d events", n)
	}
}

// A Service that waits in vain while an address is freed, and is not among the waiting yet, would miss it.
func TestWokenBetweenDecisionAndWaiting(t *testing.T) {
	w := &waiting{queue: &queue{}}
	mark := w.mark()
	w.wake()
	if !w.set(requestOf("a").NamespacedName, ipam.PoolExhausted, metav1.Time{}, mark) {
		t.Error("the decision counts as fresh")
	}
	if w.set(requestOf("a").NamespacedName, ipam.PoolExhausted, metav1.Time{}, w.mark()) {
		t.Error("the second decision counts as stale")
	}
	if got := w.byReason(); got[ipam.PoolExhausted] != 1 {
		t.Errorf("waiting: %v", got)
	}
	w.set(requestOf("a").NamespacedName, ipam.Assigned, metav1.Time{}, w.mark())
	if got := w.byReason(); len(got) != 0 {
		t.Errorf("waiting: %v", got)
	}
}

func TestOldestIsServedFirst(t *testing.T) {
	b := newBench(t, allocatorOf(), nil, nil)
	for name, age := range map[string]time.Duration{"young": 1, "old": 3, "middle": 2} {
		b.waiting.set(requestOf(name).NamespacedName, ipam.PoolExhausted, metav1.NewTime(now.Add(-age*time.Hour)), 0)
	}
	b.waiting.wake()
	for _, want := range []string{"old", "middle", "young"} {
		if got, _ := b.queue.Get(); got.Name != want {
			t.Errorf("got %s, want %s", got.Name, want)
		}
	}
}

func TestMemberlistKeyIsMadeOnce(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(cluster.Scheme()).Build()
	name := types.NamespacedName{Namespace: "steelyard", Name: "steelyard-memberlist"}
	var logged strings.Builder
	m := &memberlistSecret{client: c, live: c, name: name, log: slog.New(slog.NewTextHandler(&logged, nil))}
	var first, second corev1.Secret
	for _, secret := range []*corev1.Secret{&first, &second} {
		if err := m.ensure(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(context.Background(), name, secret); err != nil {
			t.Fatal(err)
		}
	}
	if key := first.Data["key"]; len(key) != 32 || string(key) != string(second.Data["key"]) {
		t.Errorf("keys of %d and %d bytes, or not the same", len(key), len(second.Data["key"]))
	}
	if strings.Contains(logged.String(), string(first.Data["key"])) {
		t.Error("the key is in the log")
	}

	second.Data["key"] = []byte("short")
	if err := c.Update(context.Background(), &second); err != nil {
		t.Fatal(err)
	}
	err := m.ensure(context.Background())
	if err == nil || !strings.Contains(err.Error(), "delete the Secret") || strings.Contains(err.Error(), "short") {
		t.Errorf("a key of 5 bytes: %v", err)
	}
}

func TestNote(t *testing.T) {
	long := strings.Repeat("ü", 1000)
	if got := note(long); len(got) > 1024 || !strings.HasSuffix(got, "ü...") {
		t.Errorf("%d bytes: %s", len(got), got[len(got)-10:])
	}
	if got := note("short"); got != "short" {
		t.Error(got)
	}
}

// Each address that is freed wakes all who wait.
func TestWakingManyIsCheap(t *testing.T) {
	w := &waiting{queue: &queue{}}
	for i := range 1000 {
		w.set(client.ObjectKey{Namespace: "default", Name: fmt.Sprint(i)}, ipam.PoolExhausted, now, 0)
	}
	if n := testing.AllocsPerRun(3, w.wake); n > 10 {
		t.Errorf("%v allocations to wake 1000 Services", n)
	}
}
