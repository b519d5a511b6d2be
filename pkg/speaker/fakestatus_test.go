package speaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// statusServer keeps status objects as an API server does, without a network, so that time can be a test's own.
type statusServer struct {
	mu      sync.Mutex
	objects map[string]statusObject // by path
	away    bool
	refuse  string   // paths with this in them are refused
	written []string // method and path, without lists
	events  []string
	tries   int // requests of all kinds
	page    int // the most that a list has at once
}

type statusObject struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Status   json.RawMessage   `json:"status,omitempty"`
}

func newStatusServer(t *testing.T) (*statusServer, *api) {
	s := &statusServer{objects: map[string]statusObject{}, page: 2}
	a, err := newAPI(&rest.Config{Host: "http://api", Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	return s, a
}

func (s *statusServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.away {
		return nil, errors.New("connection refused")
	}
	path := r.URL.Path
	if r.Method != http.MethodGet {
		s.written = append(s.written, r.Method+" "+path)
	}
	if s.refuse != "" && strings.Contains(path, s.refuse) {
		return answer(r, http.StatusForbidden, metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Status: metav1.StatusFailure})
	}
	object, known := s.objects[path]
	switch {
	case r.Method == http.MethodGet && (path == sessionsPath || path == announcementsPath):
		return answer(r, http.StatusOK, s.list(r))
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/events"):
		body, _ := io.ReadAll(r.Body)
		s.events = append(s.events, string(body))
		return answer(r, http.StatusCreated, metav1.Status{Status: metav1.StatusSuccess})
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml" && r.URL.Query().Get("force") == "true":
		if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
			return nil, err
		}
		if rest, namespaced := strings.CutPrefix(path, "/apis/steelyard.io/v1beta1/namespaces/"); namespaced {
			object.Metadata.Namespace, _, _ = strings.Cut(rest, "/")
		}
		s.objects[path] = object
		return answer(r, http.StatusOK, object)
	case !known:
		return answer(r, http.StatusNotFound, metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Status: metav1.StatusFailure})
	case r.Method == http.MethodDelete:
		delete(s.objects, path)
	}
	return answer(r, http.StatusOK, object)
}

func (s *statusServer) list(r *http.Request) any {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		panic(err)
	}
	_, resource, _ := strings.Cut(r.URL.Path, "v1beta1/")
	var all []statusObject
	for _, path := range slices.Sorted(maps.Keys(s.objects)) {
		if o := s.objects[path]; strings.Contains(path, "/"+resource+"/") && selector.Matches(labels.Set(o.Metadata.Labels)) {
			all = append(all, o)
		}
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	list := map[string]any{"metadata": map[string]string{}, "items": all[from:]}
	if from+s.page < len(all) {
		list["items"] = all[from : from+s.page]
		list["metadata"] = map[string]string{"continue": strconv.Itoa(from + s.page)}
	}
	return list
}

func answer(r *http.Request, code int, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
}

// change changes the server, and takes what was written to it so far.
func (s *statusServer) change(change func()) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	written := s.written
	s.written = nil
	return written
}

func (s *statusServer) wrote() []string { return s.change(func() {}) }

// statusOf returns the status at the path, "" if there is no object.
func (s *statusServer) statusOf(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.objects[path].Status)
}

func announcementPath(service, node string) string {
	return "/apis/steelyard.io/v1beta1/namespaces/default/serviceannouncements/" + service + "." + node
}

func toldRouters(prefix string, peers ...string) *v1beta1.BGPAnnouncement {
	return &v1beta1.BGPAnnouncement{Prefixes: []string{prefix}, Peers: peers}
}

// inTime runs a test in time of its own. The statuses are to be run by it.
func inTime(t *testing.T, f func(t *testing.T, server *statusServer, a *api, s *statuses)) {
	synctest.Test(t, func(t *testing.T) {
		server, a := newStatusServer(t)
		s := newStatuses(a, "node-a", quiet())
		f(t, server, a, s)
	})
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: wrote\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
