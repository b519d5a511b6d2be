package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// queue is a controller's work queue, for those who know that an object needs another look though it has not changed.
type queue struct {
	mu    sync.Mutex
	inner workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// Start makes the queue a source of requests of the controller.
func (q *queue) Start(_ context.Context, inner workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inner = inner
	return nil
}

// add asks for another look after a while. Before the controller has started it does nothing: it will look at everything then.
func (q *queue) add(name types.NamespacedName, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inner != nil {
		q.inner.AddAfter(reconcile.Request{NamespacedName: name}, after)
	}
}

// start is a source of one request when the controller starts.
func start(name types.NamespacedName) source.Source {
	return source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		q.Add(reconcile.Request{NamespacedName: name})
		return nil
	})
}

// waiting is the Services that would take an address, or one more, if there were one.
type waiting struct {
	queue *queue

	mu       sync.Mutex
	services map[types.NamespacedName]waiter
	wakes    int
}

type waiter struct {
	reason ipam.Reason
	since  metav1.Time // the creation of the Service: the oldest is first served
	id     string      // tells those of one second apart
}

// mark is to be taken before the Service is decided on, and given to set.
func (w *waiting) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wakes
}

// set records what became of a Service. It tells whether it waits and was woken since the mark, so that its decision is stale.
func (w *waiting) set(service types.NamespacedName, reason ipam.Reason, since metav1.Time, mark int) (stale bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reason == "" || reason == ipam.Assigned {
		delete(w.services, service)
		return false
	}
	if w.services == nil {
		w.services = map[types.NamespacedName]waiter{}
	}
	w.services[service] = waiter{reason, since, service.String()}
	return w.wakes != mark
}

// wake has another look at all Services that wait, the oldest first.
func (w *waiting) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakes++
	names := make([]types.NamespacedName, 0, len(w.services))
	for name := range w.services {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b types.NamespacedName) int {
		x, y := w.services[a], w.services[b]
		return assign.CompareAge(x.since, x.id, y.since, y.id)
	})
	for _, name := range names {
		w.queue.add(name, 0)
	}
}

// byReason counts the Services that have not got what they asked for.
func (w *waiting) byReason() map[ipam.Reason]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[ipam.Reason]int{}
	for _, waiter := range w.services {
		if !waiter.reason.Satisfied() {
			counts[waiter.reason]++
		}
	}
	return counts
}
