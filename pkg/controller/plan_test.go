package controller

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	snapshots "github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/plan"
)

// TestPlan: in every scenario, what package plan says of a change of pools and reservations is what the controller then does.
func TestPlan(t *testing.T) {
	planned := 0
	for _, s := range readScenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			for seed := range uint64(10) {
				w := newWorld(t, seed, ptr.Deref(s.Class, class))
				for i, step := range s.Steps {
					before := w.snapshot()
					for _, act := range step.acts(w, metav1.NewTime(now.AddDate(0, 0, i))) {
						if err := act(); err != nil {
							t.Fatal(err)
						}
					}
					said := plan.New(before, w.snapshot())
					if i == 0 {
						w.restart()
					}
					w.rest()
					if i > 0 && step.Services == nil && step.Namespaces == nil {
						planned++
						w.compare(fmt.Sprintf("step %d", i+1), before, said)
					}
				}
			}
		})
	}
	if planned == 0 {
		t.Error("no scenario has a step that changes pools only")
	}
}

// snapshot is what steelyardctl would read.
func (w *world) snapshot() *snapshots.Snapshot {
	var pools v1beta1.IPAddressPoolList
	var reservations v1beta1.AddressReservationList
	var namespaces corev1.NamespaceList
	for _, list := range []client.ObjectList{&pools, &reservations, &namespaces} {
		if err := w.List(w.Context(), list); err != nil {
			w.Fatal(err)
		}
	}
	s := &snapshots.Snapshot{Services: w.listServices(), Namespaces: namespaces.Items}
	s.Pools, s.Reservations = pools.Items, reservations.Items
	return s
}

// compare demands that each Service has what the plan says, or what it had if the plan does not speak of it.
func (w *world) compare(when string, before *snapshots.Snapshot, said *plan.Plan) {
	for _, svc := range w.listServices() {
		i := slices.IndexFunc(before.Services, func(old corev1.Service) bool { return old.Namespace == svc.Namespace && old.Name == svc.Name })
		want := assign.Addresses(&before.Services[i])
		for _, s := range said.Services {
			if s.Namespace == svc.Namespace && s.Name == svc.Name {
				want = s.To
			}
		}
		if got := assign.Addresses(&svc); !slices.Equal(got, want) {
			w.Errorf("%s: %s was to have %v and has %v", when, shortName(&svc), want, got)
		}
	}
}
