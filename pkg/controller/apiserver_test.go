package controller

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/rest"
)

// apiServer is an API server of the kinds that the controller uses: it stores, lists, watches and patches, refuses writes to
// what has changed meanwhile, and remembers which verb was used on what. It validates nothing.
type apiServer struct {
	*httptest.Server
	mu       sync.Mutex
	version  int
	objects  map[string]map[string]*unstructured.Unstructured // by resource and namespace/name
	watchers map[chan watched]selection
	used     map[string]int // "patch services/status"
}

type watched struct {
	Type   string                     `json:"type"`
	Object *unstructured.Unstructured `json:"object"`
}

// selection is what a client lists or watches.
type selection struct {
	resource, namespace string
	typ                 string // of Secrets
}

func (s selection) has(resource string, object *unstructured.Unstructured) bool {
	typ, _, _ := unstructured.NestedString(object.Object, "type")
	return s.resource == resource && (s.namespace == "" || s.namespace == object.GetNamespace()) && (s.typ == "" || s.typ == typ)
}

// served is plural -> group/version, kind, whether namespaced.
var served = []struct {
	plural, groupVersion, kind string
	namespaced                 bool
}{
	{"services", "v1", "Service", true},
	{"namespaces", "v1", "Namespace", false},
	{"nodes", "v1", "Node", false},
	{"secrets", "v1", "Secret", true},
	{"events", "v1", "Event", true},
	{"events", "events.k8s.io/v1", "Event", true},
	{"leases", "coordination.k8s.io/v1", "Lease", true},
	{"ipaddresspools", "steelyard.io/v1beta1", "IPAddressPool", false},
	{"addressreservations", "steelyard.io/v1beta1", "AddressReservation", false},
	{"l2advertisements", "steelyard.io/v1beta1", "L2Advertisement", false},
	{"bgpadvertisements", "steelyard.io/v1beta1", "BGPAdvertisement", false},
	{"bgppeers", "steelyard.io/v1beta1", "BGPPeer", false},
	{"bfdprofiles", "steelyard.io/v1beta1", "BFDProfile", false},
	{"communities", "steelyard.io/v1beta1", "Community", false},
}

func startAPIServer(t testing.TB) *apiServer {
	s := &apiServer{objects: map[string]map[string]*unstructured.Unstructured{}, watchers: map[chan watched]selection{}, used: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// config reaches the server until `alive` says no.
func (s *apiServer) config(alive func() bool) *rest.Config {
	return &rest.Config{Host: s.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"},
		WrapTransport: func(inner http.RoundTripper) http.RoundTripper { return killable{inner, alive} }}
}

type killable struct {
	http.RoundTripper
	alive func() bool
}

func (k killable) RoundTrip(r *http.Request) (*http.Response, error) {
	if !k.alive() {
		return nil, fmt.Errorf("cut off from the API server")
	}
	return k.RoundTripper.RoundTrip(r)
}

// verbs returns what was done, sorted: "list services".
func (s *apiServer) verbs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.used))
}

func (s *apiServer) times(verb string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used[verb]
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if path[0] == "api" {
		path = append([]string{"apis", ""}, path[1:]...)
	}
	if len(path) <= 3 {
		reply(w, http.StatusOK, discovery(r.URL.Path, path))
		return
	}
	groupVersion := strings.Trim(path[1]+"/"+path[2], "/")
	rest, namespace := path[3:], ""
	if rest[0] == "namespaces" && len(rest) > 2 {
		namespace, rest = rest[1], rest[2:]
	}
	resource := rest[0]
	if path[1] == "events.k8s.io" {
		resource += "." + path[1]
	}
	name, sub := "", ""
	if len(rest) > 1 {
		name = rest[1]
	}
	if len(rest) > 2 {
		sub = "/" + rest[2]
	}
	body, _ := io.ReadAll(r.Body)

	verb := map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	if verb == "get" && name == "" {
		verb = "list"
		if r.URL.Query().Get("watch") != "" {
			verb = "watch"
		}
	}
	s.mu.Lock()
	s.used[verb+" "+resource+sub]++
	s.mu.Unlock()

	partial := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	selected := selection{resource, namespace, strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "type=")}
	switch verb {
	case "watch":
		s.watch(w, r, selected, groupVersion, partial)
	case "list":
		reply(w, http.StatusOK, s.list(selected, groupVersion, partial))
	default:
		merge := jsonpatch.MergePatch
		if r.Header.Get("Content-Type") == string(types.JSONPatchType) {
			merge = jsonPatch
		}
		object, code, reason := s.do(verb, resource, namespace, name, sub, body, merge)
		if object == nil {
			reply(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure",
				Reason: reason, Code: int32(code), Message: fmt.Sprintf("%s %s/%s: %s", verb, resource, name, reason)})
			return
		}
		reply(w, code, metadataIf(partial, object))
	}
}

// do answers the verbs on one object.
func (s *apiServer) do(verb, resource, namespace, name, sub string, body []byte, merge func(object, patch []byte) ([]byte, error)) (*unstructured.Unstructured, int, metav1.StatusReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := &unstructured.Unstructured{}
	if len(body) > 0 && body[0] == '{' { // and not the list of operations of a JSON patch
		if err := utiljson.Unmarshal(body, &sent.Object); err != nil { // big integers stay what they are
			return nil, http.StatusUnsupportedMediaType, "UnsupportedMediaType"
		}
	}
	if name == "" {
		name = sent.GetName()
	}
	key := namespace + "/" + name
	old := s.objects[resource][key]
	switch {
	case verb == "create" && old != nil:
		return nil, http.StatusConflict, metav1.StatusReasonAlreadyExists
	case verb != "create" && old == nil:
		return nil, http.StatusNotFound, metav1.StatusReasonNotFound
	case verb == "get":
		return old, http.StatusOK, ""
	case verb == "delete":
		s.store("DELETED", resource, key, old)
		return old, http.StatusOK, ""
	case verb != "create" && sent.GetResourceVersion() != "" && sent.GetResourceVersion() != old.GetResourceVersion():
		return nil, http.StatusConflict, metav1.StatusReasonConflict
	case verb == "create":
		sent.SetNamespace(namespace)
		sent.SetUID(types.UID(strconv.Itoa(s.version)))
		if created := sent.GetCreationTimestamp(); created.IsZero() {
			sent.SetCreationTimestamp(metav1.Now())
		}
		return s.store("ADDED", resource, key, sent), http.StatusCreated, ""
	case verb == "patch":
		before, _ := json.Marshal(old)
		after, err := merge(before, body)
		if err != nil {
			return nil, http.StatusBadRequest, metav1.StatusReasonBadRequest
		}
		sent = &unstructured.Unstructured{}
		utiljson.Unmarshal(after, &sent.Object)
	}
	if sub == "/status" {
		status := sent.Object["status"]
		sent = old.DeepCopy()
		sent.Object["status"] = status
	}
	return s.store("MODIFIED", resource, key, sent), http.StatusOK, ""
}

// jsonPatch is RFC 6902.
func jsonPatch(object, patch []byte) ([]byte, error) {
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	return operations.Apply(object)
}

// store keeps the object, which is never changed any more, and tells the watchers. The lock is held.
func (s *apiServer) store(event, resource, key string, object *unstructured.Unstructured) *unstructured.Unstructured {
	s.version++
	object = object.DeepCopy()
	object.SetResourceVersion(strconv.Itoa(s.version))
	if s.objects[resource] == nil {
		s.objects[resource] = map[string]*unstructured.Unstructured{}
	}
	s.objects[resource][key] = object
	if event == "DELETED" {
		delete(s.objects[resource], key)
	}
	for watcher, selected := range s.watchers {
		if selected.has(resource, object) {
			watcher <- watched{event, object}
		}
	}
	return object
}

func (s *apiServer) list(selected selection, groupVersion string, partial bool) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := resourceKind(selected.resource)
	if partial {
		groupVersion, kind = "meta.k8s.io/v1", "PartialObjectMetadata"
	}
	items := []any{}
	for _, object := range s.objects[selected.resource] {
		if selected.has(selected.resource, object) {
			items = append(items, metadataIf(partial, object))
		}
	}
	return map[string]any{"kind": kind + "List", "apiVersion": groupVersion, "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}}
}

// watch streams what there is (KEP-3157) and then what happens.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, selected selection, groupVersion string, partial bool) {
	if r.URL.Query().Get("sendInitialEvents") == "" {
		reply(w, http.StatusGone, metav1.Status{Status: "Failure", Reason: metav1.StatusReasonExpired, Code: http.StatusGone})
		return
	}
	events := make(chan watched, 100_000)
	s.mu.Lock()
	for _, object := range s.objects[selected.resource] {
		if selected.has(selected.resource, object) {
			events <- watched{"ADDED", object}
		}
	}
	bookmark := &unstructured.Unstructured{Object: map[string]any{}}
	bookmark.SetAPIVersion(groupVersion)
	bookmark.SetKind(resourceKind(selected.resource))
	bookmark.SetResourceVersion(strconv.Itoa(s.version))
	bookmark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	events <- watched{"BOOKMARK", bookmark}
	s.watchers[events] = selected
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, events)
		s.mu.Unlock()
	}()

	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	for {
		w.(http.Flusher).Flush()
		select {
		case e := <-events:
			e.Object = metadataIf(partial, e.Object)
			if encoder.Encode(e) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func resourceKind(resource string) string {
	plural, _, _ := strings.Cut(resource, ".")
	for _, r := range served {
		if r.plural == plural {
			return r.kind
		}
	}
	return ""
}

func metadataIf(partial bool, object *unstructured.Unstructured) *unstructured.Unstructured {
	if !partial {
		return object
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.Object["metadata"]}}
}

func discovery(path string, parts []string) any {
	switch {
	case path == "/api":
		return metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
	case path == "/apis":
		groups := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, r := range served {
			if group, version, ok := strings.Cut(r.groupVersion, "/"); ok {
				v := metav1.GroupVersionForDiscovery{GroupVersion: r.groupVersion, Version: version}
				groups.Groups = append(groups.Groups, metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		return groups
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.Trim(strings.Join(parts[1:], "/"), "/")}
	for _, r := range served {
		if r.groupVersion == list.GroupVersion {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.plural, Kind: r.kind, Namespaced: r.namespaced,
				Verbs: metav1.Verbs{"get", "list", "watch", "create", "update", "patch", "delete"}})
		}
	}
	return list
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}
