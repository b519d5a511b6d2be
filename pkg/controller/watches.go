package controller

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
)

// nodeChanged lets pass what the configuration is about: the labels and addresses of a node, not its heartbeat.
var nodeChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
		return !maps.Equal(before.Labels, after.Labels) || !slices.Equal(before.Status.Addresses, after.Status.Addresses)
	},
}

// secretChanged lets pass what a peer's password may be another by.
var secretChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		return !equality.Semantic.DeepEqual(e.ObjectOld.(*corev1.Secret).Data, e.ObjectNew.(*corev1.Secret).Data)
	},
}

// conflictChanged lets pass a Service whose address has become another machine's, or is no longer: its pools tell of it. Those that there
// are when the controller starts are seen by its first look.
var conflictChanged = predicate.Funcs{
	CreateFunc: func(e event.CreateEvent) bool {
		return !e.IsInInitialList && contested(e.Object.(*corev1.Service)) != ""
	},
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*corev1.Service), e.ObjectNew.(*corev1.Service)
		return contested(before) != contested(after) ||
			contested(after) != "" && !slices.Equal(assign.Addresses(before), assign.Addresses(after))
	},
	DeleteFunc: func(e event.DeleteEvent) bool { return contested(e.Object.(*corev1.Service)) != "" },
}

// keptForService lets pass the reservations that the controller makes, so that it makes one anew that was deleted or changed under a
// Service that asks for it.
var keptForService = predicate.NewPredicateFuncs(func(object client.Object) bool { return object.GetLabels()[v1beta1.LabelKept] != "" })
