package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// fakeAPI is as much of an API server as the speaker uses.
type fakeAPI struct {
	url string

	mu      sync.Mutex
	objects map[string]any   // by path
	lists   map[string][]any // by path
	away    bool
	refused map[string]bool // paths that were asked for while it was away
	version int
	kicked  chan struct{} // closed to end all watches
	written []string      // method, path and body
}

var listKinds = map[string][2]string{
	"/api/v1/services":                             {"v1", "ServiceList"},
	"/api/v1/nodes":                                {"v1", "NodeList"},
	"/api/v1/namespaces/steelyard/pods":            {"v1", "PodList"},
	"/apis/discovery.k8s.io/v1/endpointslices":     {"discovery.k8s.io/v1", "EndpointSliceList"},
	"/apis/steelyard.io/v1beta1/ipaddresspools":    {"steelyard.io/v1beta1", "IPAddressPoolList"},
	"/apis/steelyard.io/v1beta1/l2advertisements":  {"steelyard.io/v1beta1", "L2AdvertisementList"},
	"/apis/steelyard.io/v1beta1/bgpadvertisements": {"steelyard.io/v1beta1", "BGPAdvertisementList"},
	"/apis/steelyard.io/v1beta1/bgppeers":          {"steelyard.io/v1beta1", "BGPPeerList"},
	"/apis/steelyard.io/v1beta1/bfdprofiles":       {"steelyard.io/v1beta1", "BFDProfileList"},
	"/apis/steelyard.io/v1beta1/communities":       {"steelyard.io/v1beta1", "CommunityList"},
	"/api/v1/namespaces/steelyard/secrets":         {"v1", "SecretList"},
}

func newFakeAPI(t *testing.T) (*fakeAPI, *api) {
	f := &fakeAPI{objects: map[string]any{}, lists: map[string][]any{}, refused: map[string]bool{}, kicked: make(chan struct{})}
	server := httptest.NewServer(f)
	f.url = server.URL
	t.Cleanup(func() {
		f.change(func() {})
		server.CloseClientConnections()
		server.Close()
	})
	a, err := newAPI(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return f, a
}

// change changes what the server has, and has everybody list anew.
func (f *fakeAPI) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.version++
	close(f.kicked)
	f.kicked = make(chan struct{})
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if f.away {
		f.refused[r.URL.Path] = true
	}
	away, kicked, version := f.away, f.kicked, strconv.Itoa(f.version)
	object, list := f.objects[r.URL.Path], f.lists[r.URL.Path]
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case away:
		panic(http.ErrAbortHandler)
	case r.Method != http.MethodGet:
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.written = append(f.written, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, body))
		f.mu.Unlock()
		if object == nil {
			object = struct{}{}
		}
		_ = json.NewEncoder(w).Encode(object)
	case r.URL.Query().Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusBadRequest)
	case r.URL.Query().Get("watch") != "":
		w.(http.Flusher).Flush()
		if r.URL.Query().Get("resourceVersion") == version {
			select {
			case <-kicked:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410,"reason":"Expired"}}`)
	case object != nil:
		_ = json.NewEncoder(w).Encode(object)
	case listKinds[r.URL.Path] == [2]string{}:
		w.WriteHeader(http.StatusNotFound)
	default:
		kind := listKinds[r.URL.Path]
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": kind[0], "kind": kind[1], "metadata": map[string]any{"resourceVersion": version}, "items": slices.Concat([]any{}, list),
		})
	}
}

func (f *fakeAPI) writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.written)
}

func (f *fakeAPI) refusals() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.refused)
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func loadBalancer(name, ip string) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}}}
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	if ip != "" {
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	}
	return svc
}

func TestFeedsFollowTheAPI(t *testing.T) {
	f, a := newFakeAPI(t)
	f.lists["/api/v1/services"] = []any{loadBalancer("web", "10.0.0.1"), loadBalancer("db", "10.0.0.2")}
	f.lists["/api/v1/nodes"] = []any{corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{"rack": "1"}}}}
	f.lists["/apis/discovery.k8s.io/v1/endpointslices"] = []any{discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Endpoints:  []discoveryv1.Endpoint{{NodeName: new("node-a")}},
	}}
	pool := v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{Name: "pool"}}
	pool.Spec.Addresses = []string{"10.0.0.0/24"}
	f.lists["/apis/steelyard.io/v1beta1/ipaddresspools"] = []any{pool}
	f.lists["/apis/steelyard.io/v1beta1/l2advertisements"] = []any{v1beta1.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}
	f.lists["/api/v1/namespaces/steelyard/pods"] = []any{
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "me"}, Spec: corev1.PodSpec{NodeName: "node-a"}, Status: corev1.PodStatus{PodIP: "192.0.2.1"}},
		corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.PodSpec{NodeName: "node-b"}, Status: corev1.PodStatus{PodIP: "192.0.2.2"}},
	}

	v := newInventory(func() {})
	feeds := startFeeds(t.Context(), a, Options{Node: "node-a", Namespace: "steelyard", Log: quiet()}, v, nil)
	select {
	case <-feeds.synced:
	case <-time.After(10 * time.Second):
		t.Fatalf("never synced: %v", feeds.missing())
	}
	web := func() *service {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.services["default/web"]
	}
	addrs := func(name string) []netip.Addr {
		v.mu.Lock()
		defer v.mu.Unlock()
		if svc := v.services[name]; svc != nil {
			return svc.addrs
		}
		return nil
	}
	if svc := web(); svc == nil || !slices.Equal(svc.spec.Serving, []string{"node-a"}) || svc.Labels["app"] != "web" || len(svc.addrs) != 1 || svc.pools[0] != "pool" {
		t.Errorf("the Service is %+v", svc)
	}
	if len(v.nodes) != 1 || v.nodes["node-a"].Labels["rack"] != "1" {
		t.Errorf("the nodes are %v", v.nodes)
	}
	if got := feeds.peers.addrs(); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.2")}) {
		t.Errorf("the peers are %v", got)
	}

	// The API server is away for a while: nothing changes.
	f.change(func() { f.away = true })
	eventually(t, "all feeds notice", func() bool { return f.refusals() == len(listKinds) })
	if len(addrs("default/web")) != 1 || len(addrs("default/db")) != 1 {
		t.Error("an API server that is away was taken for one without Services")
	}
	// It comes back, and meanwhile one Service has gone and the pool has changed.
	f.change(func() {
		f.away = false
		f.lists["/api/v1/services"] = []any{loadBalancer("web", "10.0.0.9")}
		pool.Generation++
		pool.Spec.Addresses = []string{"10.0.0.9/32"}
		f.lists["/apis/steelyard.io/v1beta1/ipaddresspools"] = []any{pool}
	})
	eventually(t, "the changes arrive", func() bool {
		return len(addrs("default/db")) == 0 && slices.Equal(addrs("default/web"), []netip.Addr{netip.MustParseAddr("10.0.0.9")})
	})
}

func TestKeyErrorsNameTheMend(t *testing.T) {
	f, a := newFakeAPI(t)
	const path = "/api/v1/namespaces/steelyard/secrets/steelyard-memberlist"
	o := Options{Namespace: "steelyard", MemberlistSecret: "steelyard-memberlist", Node: "node-a", Log: quiet()}
	if _, err := a.key(t.Context(), o.Namespace, o.MemberlistSecret); err == nil || !strings.Contains(err.Error(), "the leading controller creates it") {
		t.Errorf("a missing Secret: %v", err)
	}
	f.change(func() { f.objects[path] = corev1.Secret{Data: map[string][]byte{"key": make([]byte, 16)}} })
	if _, err := a.key(t.Context(), o.Namespace, o.MemberlistSecret); err == nil || !strings.Contains(err.Error(), "data.key has 16 bytes and must have 32") {
		t.Errorf("a short key: %v", err)
	}
	done := make(chan []byte)
	go func() {
		key, _ := a.awaitKey(t.Context(), o)
		done <- key
	}()
	f.change(func() { f.objects[path] = corev1.Secret{Data: map[string][]byte{"key": make([]byte, 32)}} })
	if key := <-done; len(key) != 32 {
		t.Errorf("the key has %d bytes", len(key))
	}
}

func TestUnknownNodeEndsTheSpeaker(t *testing.T) {
	f, a := newFakeAPI(t)
	o := Options{Node: "node-a", Log: quiet()}
	if err := a.awaitNode(t.Context(), o); err == nil || !strings.Contains(err.Error(), `there is no Node "node-a": set --node-name`) {
		t.Errorf("got %v", err)
	}
	f.change(func() { f.away = true })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.awaitNode(ctx, o); err != context.DeadlineExceeded {
		t.Errorf("an API server that is away ends the speaker: %v", err)
	}
	f.change(func() {
		f.away = false
		f.objects["/api/v1/nodes/node-a"] = corev1.Node{}
	})
	if err := a.awaitNode(t.Context(), o); err != nil {
		t.Error(err)
	}
}

func TestReports(t *testing.T) {
	f, a := newFakeAPI(t)
	r := newReporter(a, "node-a", quiet())
	web := corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "the-uid"}}
	f.change(func() {
		f.away = true
		f.objects["/api/v1/namespaces/default/services/web/status"], f.objects["/api/v1/namespaces/default/services/web"] = web, web
	})
	go r.run(t.Context())
	r.Complain("default/web", "AddressConflict", "taken by 02:00:00:00:00:01", false)
	eventually(t, "a try in vain", func() bool { return f.refusals() > 0 })
	f.change(func() { f.away = false })
	eventually(t, "the condition and the Event are written", func() bool { return len(f.writes()) == 2 })
	writes := f.writes()
	for i, want := range [][]string{
		{"PATCH /api/v1/namespaces/default/services/web/status", `"type":"steelyard.io/Announced"`, `"status":"False"`, `"reason":"AddressConflict"`, "02:00:00:00:00:01"},
		{"POST /api/v1/namespaces/default/events", "AddressConflict", "Warning", "02:00:00:00:00:01", "the-uid"},
	} {
		for _, part := range want {
			if !strings.Contains(writes[i], part) {
				t.Errorf("%q is missing from %s", part, writes[i])
			}
		}
	}
	r.Complain("default/web", "NoEligibleNode", "in other words", true)
	eventually(t, "the condition is amended", func() bool { return len(f.writes()) == 3 })
	if want := `PATCH /api/v1/namespaces/default/services/web/status {"status":{"conditions":[` +
		`{"type":"steelyard.io/Announced","status":"False","reason":"NoEligibleNode","message":"in other words"}]}}`; f.writes()[2] != want {
		t.Errorf("wrote %s, want %s", f.writes()[2], want)
	}
	r.Withdraw("default/web")
	eventually(t, "the condition is taken back", func() bool { return len(f.writes()) == 4 })
	if want := `PATCH /api/v1/namespaces/default/services/web/status {"status":{"conditions":[{"$patch":"delete","type":"steelyard.io/Announced"}]}}`; f.writes()[3] != want {
		t.Errorf("wrote %s, want %s", f.writes()[3], want)
	}
	// `kubectl describe` shows Events that have the object's UID only, and of a Node those with its name in place of that.
	for _, about := range []struct {
		warn func()
		uid  string
	}{
		{func() { r.Warn("default/web", "AddressConflict", "claimed by another") }, "the-uid"},
		{func() { r.WarnNode("OtherProxy", "kube-proxy runs") }, "\"\x06node-a"},
	} {
		before := len(f.writes())
		about.warn()
		eventually(t, "the Event is written", func() bool { return len(f.writes()) == before+1 })
		if got := f.writes()[before]; !strings.Contains(got, "/events") || !strings.Contains(got, about.uid) {
			t.Errorf("the Event lacks the UID %q: %q", about.uid, got)
		}
	}
	r.Warn("default/gone", "AddressConflict", "nobody is told of a Service that is gone")
	r.WarnNode("OtherProxy", "kube-proxy runs")
	eventually(t, "the next Event is written", func() bool { return len(f.writes()) >= 7 })
	if got := f.writes(); len(got) > 7 || !strings.Contains(got[6], "OtherProxy") {
		t.Errorf("written at last: %q", got[6:])
	}
}
