package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
)

// scenario is a story in steps. What the first step creates is there before the controller is; what a later one does happens in any
// order, while the controller works.
type scenario struct {
	Name string
	// Class is the load balancer class that is served; unset, the default.
	Class *string
	Steps []step
}

// step is what a user does, null standing for a deletion, and what comes of it.
type step struct {
	Pools        map[string]*v1beta1.IPAddressPoolSpec
	Reservations map[string]*v1beta1.AddressReservationSpec
	Namespaces   map[string]map[string]string // labels
	// Services have annotations, labels, spec and status; what the spec leaves out is that of a Service with one IPv4 cluster address. One
	// that exists keeps its status unless there is another here.
	Services map[string]json.RawMessage

	// Expect is, of all Services, the addresses and the condition AddressAssigned.
	Expect map[string]string
	// Events are those that this step leads to.
	Events map[string][]string
	// Kept are the addresses in the reservations that the controller has made.
	Kept map[string][]string
	// True are, of the pools that are named, the conditions with the status True.
	True map[string]string
	// Released are the addresses that the pools remember.
	Released map[string][]string
}

func TestScenarios(t *testing.T) {
	for _, s := range readScenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			ends := map[string]bool{}
			for seed := range uint64(100) {
				if ends[s.play(newWorld(t, seed, ptr.Deref(s.Class, class)))] = true; len(ends) > 1 {
					t.Fatalf("ends differ:\n%s", strings.Join(slices.Collect(maps.Keys(ends)), "\n\n"))
				}
			}
		})
	}
}

func readScenarios(t *testing.T) []scenario {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	var all []scenario
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var scenarios []scenario
		if err := yaml.UnmarshalStrict(text, &scenarios); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, scenarios...)
	}
	return all
}

// play goes through the steps and returns the end.
func (s *scenario) play(w *world) string {
	for i, step := range s.Steps {
		clear(w.events)
		created := metav1.NewTime(now.Add(time.Duration(i) * time.Hour))
		acts := step.acts(w, created)
		w.random.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
		for _, act := range acts {
			if err := act(); err != nil {
				w.Fatalf("step %d: %v", i+1, err)
			}
			for i > 0 && len(w.pending) > 0 && w.random.IntN(2) == 0 {
				w.work()
			}
		}
		if i == 0 {
			w.restart()
		}
		w.rest()
		step.check(w, i+1)
		w.standsStill(i + 1)
		if w.Failed() {
			w.FailNow()
		}
	}
	return w.dump()
}

// standsStill looks at everything once more, perhaps as another controller that knows only what the objects say: nothing is written.
func (w *world) standsStill(step int) {
	before, events := w.dump(), len(w.events)
	w.writes = nil
	if w.random.IntN(2) == 0 {
		w.restart()
	} else {
		w.lookAtAll()
	}
	w.rest()
	if diff := cmp.Diff(before, w.dump()); diff != "" || len(w.writes) > 0 || len(w.events) != events {
		w.Errorf("step %d: a second look changes what was decided (%q, events %v): %s", step, w.writes, w.events, diff)
	}
}

// acts are what the user does, one object each.
func (s *step) acts(w *world, created metav1.Time) []func() error {
	var acts []func() error
	do := func(object client.Object, delete bool, change func()) {
		acts = append(acts, func() error {
			err := w.Get(w.Context(), client.ObjectKeyFromObject(object), object)
			switch {
			case delete:
				return w.Delete(w.Context(), object)
			case apierrors.IsNotFound(err):
				object.SetCreationTimestamp(created)
				change()
				return w.Create(w.Context(), object)
			}
			change()
			return w.Update(w.Context(), object)
		})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Pools)) {
		p := &v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}}
		do(p, s.Pools[name] == nil, func() { p.Spec = *s.Pools[name] })
	}
	for _, name := range slices.Sorted(maps.Keys(s.Reservations)) {
		r := &v1beta1.AddressReservation{ObjectMeta: metav1.ObjectMeta{Name: name}}
		do(r, s.Reservations[name] == nil, func() { r.Spec = *s.Reservations[name] })
	}
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		do(n, s.Namespaces[name] == nil, func() { n.Labels = s.Namespaces[name] })
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		acts = append(acts, func() error { return w.setService(name, s.Services[name], created) })
	}
	return acts
}

// setService creates, changes or deletes a Service, and then its status if that is given.
func (w *world) setService(name string, text json.RawMessage, created metav1.Time) error {
	namespace, short, found := strings.Cut(name, "/")
	if !found {
		namespace, short = metav1.NamespaceDefault, name
	}
	svc := newService(short)
	svc.Namespace, svc.CreationTimestamp = namespace, created
	if string(text) == "null" {
		return w.Delete(w.Context(), svc)
	}
	var parts struct {
		Annotations, Labels map[string]string
		Spec                json.RawMessage
		Status              *corev1.ServiceStatus
	}
	if err := yaml.UnmarshalStrict(text, &parts); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	svc.Annotations, svc.Labels = parts.Annotations, parts.Labels
	if parts.Spec != nil {
		if err := yaml.UnmarshalStrict(parts.Spec, &svc.Spec); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if parts.Status != nil {
		svc.Status = *parts.Status
	}
	var old corev1.Service
	err := w.Get(w.Context(), client.ObjectKeyFromObject(svc), &old)
	if apierrors.IsNotFound(err) {
		return w.Create(w.Context(), svc)
	}
	svc.ResourceVersion, svc.UID, svc.CreationTimestamp = old.ResourceVersion, old.UID, old.CreationTimestamp
	if parts.Status != nil {
		for _, c := range old.Status.Conditions { // the user has a part of the status, and we have the rest
			if meta.FindStatusCondition(svc.Status.Conditions, c.Type) == nil {
				svc.Status.Conditions = append(svc.Status.Conditions, c)
			}
		}
		if svc.Status.LoadBalancer.Ingress == nil {
			svc.Status.LoadBalancer = old.Status.LoadBalancer
		}
		status := svc.DeepCopy()
		if err := w.Status().Update(w.Context(), status); err != nil {
			return err
		}
		svc.ResourceVersion = status.ResourceVersion
	}
	return w.Update(w.Context(), svc)
}

func (s *step) check(w *world, number int) {
	is := func(what string, want, got any) {
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("step %d: %s (-want +got):\n%s", number, what, diff)
		}
	}
	states := map[string]string{}
	for _, svc := range w.listServices() {
		states[shortName(&svc)] = told(assign.Decision{Status: svc.Status})
	}
	is("Services", orEmpty(s.Expect), states)
	is("Events", orEmpty(s.Events), w.events)

	kept := map[string][]string{}
	var reservations v1beta1.AddressReservationList
	if err := w.List(w.Context(), &reservations); err != nil {
		w.Fatal(err)
	}
	for _, r := range reservations.Items {
		if r.Labels[v1beta1.LabelKept] == "true" {
			kept[r.Name] = r.Spec.Addresses
		}
	}
	is("kept addresses", orEmpty(s.Kept), kept)

	var pools v1beta1.IPAddressPoolList
	if err := w.List(w.Context(), &pools); err != nil {
		w.Fatal(err)
	}
	for _, p := range pools.Items {
		var conditions []string
		for _, c := range p.Status.Conditions {
			if c.Status == metav1.ConditionTrue {
				conditions = append(conditions, c.Type)
			}
		}
		slices.Sort(conditions)
		if want, ok := s.True[p.Name]; ok {
			is("conditions of pool "+p.Name, want, strings.Join(conditions, " "))
		}
		is("what pool "+p.Name+" remembers", s.Released[p.Name], p.Status.Released)
	}
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}
