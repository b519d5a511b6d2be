package plan

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Edit is a change of the configuration.
type Edit struct {
	// Put are objects that are created, or replace those of their kind and name.
	Put []client.Object
	// Delete are objects that are deleted.
	Delete []Ref
	// Prune deletes all that is not among Put, except what the controller made.
	Prune bool
}

// Ref names an object.
type Ref struct {
	Kind string // such as config.KindIPAddressPool
	Name string
}

// Apply returns the snapshot with the configuration changed. Objects that are new are created now; it is an error to delete one that is
// not there.
func (e *Edit) Apply(before *cluster.Snapshot, now metav1.Time) (*cluster.Snapshot, error) {
	after := *before
	created := map[Ref]metav1.Time{}
	for _, k := range kinds(&after) {
		for name, at := range k.created() {
			created[Ref{k.kind, name}] = at
		}
		if e.Prune {
			k.retain(func(o metav1.Object) bool { return o.GetLabels()[v1beta1.LabelKept] != "" })
		}
	}
	for _, ref := range e.Delete {
		if _, ok := created[ref]; !ok {
			return nil, fmt.Errorf("there is no %s %q to delete", ref.Kind, ref.Name)
		}
		for _, k := range kinds(&after) {
			if k.kind == ref.Kind {
				k.retain(func(o metav1.Object) bool { return o.GetName() != ref.Name })
			}
		}
	}
	for _, o := range e.Put {
		o = o.DeepCopyObject().(client.Object)
		o.SetNamespace("")
		o.SetCreationTimestamp(now)
		if at, ok := created[Ref{o.GetObjectKind().GroupVersionKind().Kind, o.GetName()}]; ok {
			o.SetCreationTimestamp(at)
		}
		if err := after.Put(o); err != nil {
			return nil, err
		}
	}
	return &after, nil
}

// kind is the objects of one kind in a snapshot.
type kind struct {
	kind    string
	created func() map[string]metav1.Time // by name
	retain  func(func(metav1.Object) bool)
}

func kinds(s *cluster.Snapshot) []kind {
	return []kind{
		kindOf(config.KindIPAddressPool, &s.Pools),
		kindOf(config.KindAddressReservation, &s.Reservations),
		kindOf(config.KindL2Advertisement, &s.L2Advertisements),
		kindOf(config.KindBGPAdvertisement, &s.BGPAdvertisements),
		kindOf(config.KindBGPPeer, &s.BGPPeers),
		kindOf(config.KindBFDProfile, &s.BFDProfiles),
		kindOf(config.KindCommunity, &s.Communities),
	}
}

func kindOf[T any, P interface {
	*T
	metav1.Object
}](name string, objects *[]T) kind {
	return kind{
		kind: name,
		created: func() map[string]metav1.Time {
			at := map[string]metav1.Time{}
			for i := range *objects {
				at[P(&(*objects)[i]).GetName()] = P(&(*objects)[i]).GetCreationTimestamp()
			}
			return at
		},
		retain: func(keep func(metav1.Object) bool) {
			*objects = slices.DeleteFunc(slices.Clone(*objects), func(o T) bool { return !keep(P(&o)) })
		},
	}
}

// Kinds returns the kinds that a plan can be about.
func Kinds() []string {
	var names []string
	for _, k := range kinds(&cluster.Snapshot{}) {
		names = append(names, k.kind)
	}
	return names
}
