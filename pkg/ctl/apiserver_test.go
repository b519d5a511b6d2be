package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// apiServer is an API server for one who reads: it lists and gets what it was given, forbids what it is told to, and passes on to pods.
type apiServer struct {
	url       string
	mu        sync.Mutex
	objects   map[string][]*unstructured.Unstructured // by resource
	forbidden map[string]bool                         // resources; pods/proxy
	absent    map[string]bool                         // resources that the cluster does not have
	pods      map[string]string                       // what a pod answers at a path: "pod:port/path"
}

// resources is plural, with the group for those of MetalLB -> group/version, kind, whether namespaced.
var resources = []struct {
	plural, groupVersion, kind string
	namespaced                 bool
}{
	{"services", "v1", "Service", true},
	{"namespaces", "v1", "Namespace", false},
	{"nodes", "v1", "Node", false},
	{"pods", "v1", "Pod", true},
	{"endpointslices", "discovery.k8s.io/v1", "EndpointSlice", true},
	{"leases", "coordination.k8s.io/v1", "Lease", true},
	{"ipaddresspools", "steelyard.io/v1beta1", "IPAddressPool", false},
	{"addressreservations", "steelyard.io/v1beta1", "AddressReservation", false},
	{"l2advertisements", "steelyard.io/v1beta1", "L2Advertisement", false},
	{"bgpadvertisements", "steelyard.io/v1beta1", "BGPAdvertisement", false},
	{"bgppeers", "steelyard.io/v1beta1", "BGPPeer", false},
	{"bfdprofiles", "steelyard.io/v1beta1", "BFDProfile", false},
	{"communities", "steelyard.io/v1beta1", "Community", false},
	{"serviceannouncements", "steelyard.io/v1beta1", "ServiceAnnouncement", true},
	{"bgpsessions", "steelyard.io/v1beta1", "BGPSession", false},
	{"configmaps", "v1", "ConfigMap", true},
	{"metallb.io/ipaddresspools", "metallb.io/v1beta1", "IPAddressPool", true},
	{"metallb.io/l2advertisements", "metallb.io/v1beta1", "L2Advertisement", true},
	{"metallb.io/bgppeers", "metallb.io/v1beta1", "BGPPeer", true},
	{"frrk8s.metallb.io/frrconfigurations", "frrk8s.metallb.io/v1beta1", "FRRConfiguration", true},
}

// startAPIServer starts one with the objects in the files.
func startAPIServer(t *testing.T, files ...string) *apiServer {
	t.Helper()
	s := &apiServer{objects: map[string][]*unstructured.Unstructured{}, forbidden: map[string]bool{}, absent: map[string]bool{}, pods: map[string]string{}}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(document, &object.Object); err != nil {
				t.Fatal(file, err)
			}
			for _, r := range resources {
				if r.kind == object.GetKind() && r.groupVersion == object.GetAPIVersion() {
					s.objects[r.plural] = append(s.objects[r.plural], object)
				}
			}
		}
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// run runs a command line against the server and returns what it prints and its exit code.
func (s *apiServer) run(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: test, contexts: [{name: test, context: {cluster: test, user: test, namespace: shop}}],
users: [{name: test}], clusters: [{name: test, cluster: {server: %q}}]}`, s.url)
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code = Run(t.Context(), append([]string{"steelyardctl", "--kubeconfig", kubeconfig, "--cache-dir", t.TempDir()}, args...),
		Streams{In: strings.NewReader(""), Out: &stdout, ErrOut: &stderr})
	return stdout.String(), stderr.String(), code
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if path[0] == "api" {
		path = append([]string{"apis", ""}, path[1:]...)
	}
	if len(path) <= 3 {
		reply(w, http.StatusOK, s.discovery(r.URL.Path, strings.Trim(strings.Join(path[1:], "/"), "/")))
		return
	}
	rest, namespace := path[3:], ""
	if rest[0] == "namespaces" && len(rest) > 2 {
		namespace, rest = rest[1], rest[2:]
	}
	resource := rest[0]
	if strings.HasSuffix(path[1], "metallb.io") {
		resource = path[1] + "/" + resource
	}
	what := resource
	if len(rest) > 2 {
		what += "/" + rest[2]
	}
	if s.forbidden[what] {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, what)
		return
	}
	if what == "pods/proxy" {
		s.proxy(w, strings.TrimPrefix(rest[1], "http:")+"/"+strings.Join(rest[3:], "/"))
		return
	}
	items := []any{}
	for _, object := range s.objects[resource] {
		if namespace != "" && object.GetNamespace() != namespace {
			continue
		}
		if len(rest) > 1 && object.GetName() == rest[1] {
			reply(w, http.StatusOK, object)
			return
		}
		items = append(items, object)
	}
	if len(rest) > 1 {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, resource)
		return
	}
	reply(w, http.StatusOK, map[string]any{"kind": kindOf(resource) + "List", "apiVersion": strings.Trim(path[1]+"/"+path[2], "/"),
		"metadata": map[string]any{}, "items": items})
}

func (s *apiServer) proxy(w http.ResponseWriter, address string) {
	answer, ok := s.pods[address]
	if !ok {
		http.Error(w, "nothing is known of "+address, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, answer)
}

func (s *apiServer) discovery(path, groupVersion string) any {
	switch path {
	case "/api":
		return metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
	case "/apis":
		groups := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		seen := map[string]bool{}
		for _, r := range resources {
			if group, version, ok := strings.Cut(r.groupVersion, "/"); ok && !seen[group] {
				seen[group] = true
				v := metav1.GroupVersionForDiscovery{GroupVersion: r.groupVersion, Version: version}
				groups.Groups = append(groups.Groups, metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		return groups
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: groupVersion}
	for _, r := range resources {
		if r.groupVersion == groupVersion && !s.absent[r.plural] {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.plural[strings.Index(r.plural, "/")+1:], Kind: r.kind, Namespaced: r.namespaced, Verbs: metav1.Verbs{"get", "list"}})
		}
	}
	return list
}

func kindOf(resource string) string {
	for _, r := range resources {
		if r.plural == resource {
			return r.kind
		}
	}
	return ""
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, what string) {
	reply(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code),
		Message: fmt.Sprintf("%s: %s", what, reason)})
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}
