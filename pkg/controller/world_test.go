package controller

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// world is the two reconcilers on one goroutine, and the objects that they are about. What is to be looked at next is chance's choice;
// the time stands still.
type world struct {
	*testing.T
	*store
	random  *rand.Rand
	class   string
	pending []job
	events  map[string][]string // by Service, "Warning PoolExhausted"
	writes  []string            // of the reconcilers
	acting  bool                // a reconciler is at work

	services      *services
	configuration *configuration
}

// job is a request to one of the two.
type job struct {
	reconciler reconcile.Reconciler
	name       types.NamespacedName
}

func newWorld(t *testing.T, seed uint64, class string) *world {
	w := &world{T: t, random: rand.New(rand.NewPCG(seed, 0)), class: class, events: map[string][]string{}}
	w.store = &store{objects: map[storeKey]client.Object{}, wrote: w.wrote}
	return w
}

// restart begins anew with what the objects say.
func (w *world) restart() {
	serviceQueue, configQueue := &queue{}, &queue{}
	waiting := &waiting{queue: serviceQueue}
	counters, last := newCounters(), &atomic.Pointer[snapshot]{}
	log, clock := slog.New(slog.DiscardHandler), func() time.Time { return now.Time }
	w.configuration = &configuration{client: w.store, live: w.store, allocator: ipam.New(), class: w.class, namespace: "steelyard", log: log, now: clock,
		counters: counters, snapshot: last, queue: configQueue, services: serviceQueue, waiting: waiting, adopted: make(chan struct{})}
	w.services = &services{client: w.store, live: w.store, allocator: w.configuration.allocator, class: w.class, recorder: w, log: log, now: clock,
		counters: counters, snapshot: last, adopted: w.configuration.adopted, waiting: waiting, counted: w.configuration.counted}
	serviceQueue.Start(w.Context(), jobs{w: w, reconciler: w.services})
	configQueue.Start(w.Context(), jobs{w: w, reconciler: w.configuration})
	w.pending = nil
	w.lookAtAll()
}

// lookAtAll is what a resynchronization would do.
func (w *world) lookAtAll() {
	w.add(w.configuration, theConfiguration)
	for _, svc := range w.listServices() {
		w.add(w.services, client.ObjectKeyFromObject(&svc))
	}
}

// jobs is the work queue of one of the two.
type jobs struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	w          *world
	reconciler reconcile.Reconciler
}

func (j jobs) AddAfter(r reconcile.Request, _ time.Duration) { j.w.add(j.reconciler, r.NamespacedName) }

func (w *world) add(reconciler reconcile.Reconciler, name types.NamespacedName) {
	if j := (job{reconciler, name}); !slices.Contains(w.pending, j) {
		w.pending = append(w.pending, j)
	}
}

// wrote notes a write and does what the watches would.
func (w *world) wrote(verb string, before, after client.Object) {
	if w.configuration == nil {
		return
	}
	object := cmp.Or(after, before)
	if w.acting {
		w.writes = append(w.writes, fmt.Sprintf("%s %s %s", verb, kindOf(object), object.GetName()))
	}
	switch o := object.(type) {
	case *corev1.Service:
		w.add(w.services, client.ObjectKeyFromObject(o))
		if passes(conflictChanged, before, after) {
			w.add(w.configuration, theConfiguration)
		}
	case *corev1.Namespace:
		for _, r := range w.services.ofNamespace(w.Context(), o) {
			w.add(w.services, r.NamespacedName)
		}
	case *v1beta1.AddressReservation:
		w.add(w.configuration, theConfiguration)
		if passes(keptForService, before, after) {
			for _, r := range ofReservation(w.Context(), o) {
				w.add(w.services, r.NamespacedName)
			}
		}
	default:
		w.add(w.configuration, theConfiguration)
	}
}

// passes tells whether the predicate lets a watch's event pass.
func passes(p predicate.Predicate, before, after client.Object) bool {
	switch {
	case before == nil:
		return p.Create(event.CreateEvent{Object: after})
	case after == nil:
		return p.Delete(event.DeleteEvent{Object: before})
	default:
		return p.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: after})
	}
}

// work does one of the jobs. Before the adoption the reconciler of Services waits.
func (w *world) work() {
	i := w.random.IntN(len(w.pending))
	select {
	case <-w.configuration.adopted:
	default:
		i = slices.IndexFunc(w.pending, func(j job) bool { return j.reconciler == reconcile.Reconciler(w.configuration) })
	}
	j := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	w.acting = true
	result, err := j.reconciler.Reconcile(w.Context(), reconcile.Request{NamespacedName: j.name})
	w.acting = false
	if err != nil {
		w.Fatalf("%s: %v", j.name, err)
	}
	if result.RequeueAfter > 0 {
		w.add(j.reconciler, j.name)
	}
}

// rest works until nothing is left to do.
func (w *world) rest() {
	for n := 0; len(w.pending) > 0; n++ {
		if n == 10_000 {
			w.Fatalf("never comes to rest: %v", w.pending)
		}
		w.work()
	}
}

// Eventf implements events.EventRecorder.
func (w *world) Eventf(about, _ runtime.Object, typ, reason, _, note string, args ...any) {
	name := shortName(about.(client.Object))
	w.events[name] = append(w.events[name], typ+" "+reason)
	if strings.Contains(fmt.Sprintf(note, args...), "%!") {
		w.Errorf("an Event about %s says "+note, append([]any{name}, args...)...)
	}
}

func (w *world) listServices() []corev1.Service {
	var list corev1.ServiceList
	if err := w.List(w.Context(), &list); err != nil {
		w.Fatal(err)
	}
	return list.Items
}

// shortName leaves out the namespace default.
func shortName(o client.Object) string {
	return strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), metav1.NamespaceDefault+"/")
}

// dump is all that there is, without what counts writes.
func (w *world) dump() string {
	var all []string
	for _, list := range []client.ObjectList{&corev1.ServiceList{}, &v1beta1.IPAddressPoolList{}, &v1beta1.AddressReservationList{}} {
		if err := w.List(w.Context(), list); err != nil {
			w.Fatal(err)
		}
		switch list := list.(type) {
		case *corev1.ServiceList:
			all = append(all, texts(list.Items)...)
		case *v1beta1.IPAddressPoolList:
			all = append(all, texts(list.Items)...)
		case *v1beta1.AddressReservationList:
			all = append(all, texts(list.Items)...)
		}
	}
	return strings.Join(all, "\n")
}

func texts[T any, P interface {
	*T
	client.Object
}](items []T) []string {
	var all []string
	for i := range items {
		P(&items[i]).SetResourceVersion("")
		text, _ := json.Marshal(&items[i])
		all = append(all, string(text))
	}
	return all
}
