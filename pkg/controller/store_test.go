package controller

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// store is a client whose objects are in memory. It is the part of an API server that reconcilers can tell from another, and a hundred times
// as fast as the stand-in: a scenario is played often.
type store struct {
	client.Client // the rest is not used
	objects       map[storeKey]client.Object
	version       int
	wrote         func(verb string, before, after client.Object) // before is nil when it was created, after when it was deleted
}

type storeKey struct {
	kind string
	types.NamespacedName
}

func keyOf(o client.Object) storeKey {
	kind := kindOf(o)
	if partial, ok := o.(*metav1.PartialObjectMetadata); ok {
		kind = partial.Kind
	}
	return storeKey{kind, client.ObjectKeyFromObject(o)}
}

func (k storeKey) resource() schema.GroupResource {
	return schema.GroupResource{Resource: strings.ToLower(k.kind) + "s"}
}

func (s *store) Get(_ context.Context, name types.NamespacedName, into client.Object, _ ...client.GetOption) error {
	key := keyOf(into)
	key.NamespacedName = name
	have := s.objects[key]
	if have == nil {
		return apierrors.NewNotFound(key.resource(), name.Name)
	}
	if partial, ok := into.(*metav1.PartialObjectMetadata); ok {
		partial.Name, partial.Labels = name.Name, have.GetLabels()
		return nil
	}
	assignTo(into, have)
	return nil
}

func (s *store) List(_ context.Context, into client.ObjectList, opts ...client.ListOption) error {
	var options client.ListOptions
	options.ApplyOptions(opts)
	items := reflect.ValueOf(into).Elem().FieldByName("Items")
	var keys []storeKey
	for key := range s.objects {
		if key.kind == items.Type().Elem().Name() && (options.Namespace == "" || options.Namespace == key.Namespace) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b storeKey) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		items.Set(reflect.Append(items, reflect.ValueOf(s.objects[key].DeepCopyObject()).Elem()))
	}
	return nil
}

func (s *store) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	if key := keyOf(o); s.objects[key] != nil {
		return apierrors.NewAlreadyExists(key.resource(), key.Name)
	}
	o.SetUID(types.UID(o.GetName()))
	s.put("create", o)
	return nil
}

// Update leaves the status as it is.
func (s *store) Update(_ context.Context, o client.Object, _ ...client.UpdateOption) error {
	return s.replace("update", o, func(have client.Object) { setStatus(o, have) })
}

func (s *store) Delete(_ context.Context, o client.Object, _ ...client.DeleteOption) error {
	key := keyOf(o)
	have := s.objects[key]
	if have == nil {
		return apierrors.NewNotFound(key.resource(), key.Name)
	}
	delete(s.objects, key)
	s.wrote("delete", have, nil)
	return nil
}

func (s *store) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.PatchOption) error {
	return s.patch("patch", o, p, func(have client.Object) { setStatus(o, have) })
}

func (s *store) Status() client.SubResourceWriter { return statusOf{store: s} }

// statusOf is the subresource of the statuses.
type statusOf struct {
	client.SubResourceWriter // the rest is not used
	store                    *store
}

func (s statusOf) Update(_ context.Context, o client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.store.replace("update status", o, func(have client.Object) { onlyStatus(o, have) })
}

func (s statusOf) Patch(_ context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.store.patch("patch status", o, p, func(have client.Object) { onlyStatus(o, have) })
}

// patch makes of the object what the patch makes of the stored one.
func (s *store) patch(verb string, o client.Object, p client.Patch, keep func(have client.Object)) error {
	have := s.objects[keyOf(o)]
	if have == nil {
		return s.replace(verb, o, keep)
	}
	data, err := p.Data(o)
	if err != nil {
		return err
	}
	text, err := json.Marshal(have)
	if err != nil {
		return err
	}
	apply := jsonpatch.MergePatch
	if p.Type() == types.JSONPatchType {
		apply = jsonPatch
	}
	if text, err = apply(text, data); err != nil {
		return err
	}
	after := reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
	if err := json.Unmarshal(text, after); err != nil {
		return err
	}
	assignTo(o, after)
	return s.replace(verb, o, keep)
}

// replace stores the object instead of the one of its name, unless that has changed meanwhile.
func (s *store) replace(verb string, o client.Object, keep func(have client.Object)) error {
	key := keyOf(o)
	have := s.objects[key]
	switch {
	case have == nil:
		return apierrors.NewNotFound(key.resource(), key.Name)
	case have.GetResourceVersion() != o.GetResourceVersion():
		return apierrors.NewConflict(key.resource(), key.Name, nil)
	}
	keep(have)
	s.put(verb, o)
	return nil
}

func (s *store) put(verb string, o client.Object) {
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	before := s.objects[keyOf(o)]
	s.objects[keyOf(o)] = o.DeepCopyObject().(client.Object)
	s.wrote(verb, before, s.objects[keyOf(o)])
}

func assignTo(into, from client.Object) {
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(from.DeepCopyObject()).Elem())
}

// setStatus gives the object the status of another.
func setStatus(o, other client.Object) {
	if status := reflect.ValueOf(o).Elem().FieldByName("Status"); status.IsValid() {
		status.Set(reflect.ValueOf(other.DeepCopyObject()).Elem().FieldByName("Status"))
	}
}

// onlyStatus makes of the object the other one with the status of the object.
func onlyStatus(o, other client.Object) {
	after := other.DeepCopyObject().(client.Object)
	setStatus(after, o)
	assignTo(o, after)
}
