package speaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	sessionsPath      = "/apis/steelyard.io/v1beta1/bgpsessions"
	announcementsPath = "/apis/steelyard.io/v1beta1/serviceannouncements"
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

// A restart takes no object apart: what one source tells of stays while the other has told already.
func TestPartsOfAnEarlierRunAreInherited(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, a *api, next *statuses) {
		layer2 := &v1beta1.Layer2Announcement{Addresses: []string{"10.0.0.1"}}
		earlier := newStatuses(a, "node-a", quiet())
		for _, service := range []string{"default/same", "default/fewer"} {
			earlier.SetLayer2(service, layer2)
			earlier.SetBGP(service, toldRouters("10.0.0.1/32", "tor"))
		}
		earlier.pass(t.Context())
		server.wrote()

		next.SetBGP("default/same", toldRouters("10.0.0.1/32", "tor"))
		go next.run(t.Context())
		synctest.Wait()
		next.SetBGP("default/fewer", toldRouters("10.0.0.1/32", "tor"))
		next.SetLayer2("default/same", nil)
		next.SetLayer2("default/fewer", nil)
		synctest.Wait()
		next.SetLayer2("default/same", layer2)
		synctest.Wait()
		expect(t, "before it is ready", server.wrote())
		next.ready()
		synctest.Wait()
		expect(t, "when it is ready", server.wrote(), "PATCH "+announcementPath("fewer", "node-a"))
		if got := server.statusOf(announcementPath("fewer", "node-a")); strings.Contains(got, "layer2") {
			t.Errorf("the status is %s", got)
		}
	})
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

func TestAnnouncementsAreShown(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		web := announcementPath("web", "node-a")
		s.ready()
		s.SetBGP("default/web", toldRouters("10.0.0.1/32", "tor1", "tor2"))
		synctest.Wait()
		expect(t, "routers", server.wrote(), "PATCH "+web)
		if want := `{"service":"web","node":"node-a","bgp":{"prefixes":["10.0.0.1/32"],"peers":["tor1","tor2"]}}`; server.statusOf(web) != want {
			t.Errorf("the status is %s", server.statusOf(web))
		}
		if got := server.objects[web].Metadata.Labels["steelyard.io/node"]; got != "node-a" {
			t.Errorf("the label is %q", got)
		}

		s.SetLayer2("default/web", &v1beta1.Layer2Announcement{Addresses: []string{"10.0.0.1"}, Interfaces: []string{"eth0"}})
		synctest.Wait()
		expect(t, "both", server.wrote(), "PATCH "+web)
		if want := `{"service":"web","node":"node-a","layer2":{"addresses":["10.0.0.1"],"interfaces":["eth0"]},` +
			`"bgp":{"prefixes":["10.0.0.1/32"],"peers":["tor1","tor2"]}}`; server.statusOf(web) != want {
			t.Errorf("the status is %s", server.statusOf(web))
		}

		s.SetBGP("default/web", toldRouters("10.0.0.1/32", "tor1", "tor2"))
		s.SetBGP("default/other", nil)
		time.Sleep(24 * time.Hour)
		expect(t, "the same again", server.wrote())

		s.SetBGP("default/web", nil)
		synctest.Wait()
		expect(t, "layer 2 only", server.wrote(), "PATCH "+web)
		if want := `{"service":"web","node":"node-a","layer2":{"addresses":["10.0.0.1"],"interfaces":["eth0"]}}`; server.statusOf(web) != want {
			t.Errorf("the status is %s", server.statusOf(web))
		}
		s.SetLayer2("default/web", nil)
		synctest.Wait()
		expect(t, "nothing", server.wrote(), "DELETE "+web)
		if len(s.items) > 0 || len(s.later) > 0 {
			t.Errorf("kept: %v %v", s.items, s.later)
		}
	})
}

func TestStatusesOfAnEarlierRunAreAdopted(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, a *api, next *statuses) {
		earlier := newStatuses(a, "node-a", quiet())
		for i := range 5 {
			earlier.SetBGP(fmt.Sprintf("default/web-%d", i), toldRouters("10.0.0.1/32", "tor1"))
		}
		earlier.SetSessions([]v1beta1.BGPSessionStatus{{Peer: "tor1", State: "Established"}})
		earlier.pass(t.Context())
		if got := server.wrote(); len(got) != 6 {
			t.Fatalf("wrote %s", got)
		}
		foreign := announcementPath("web-0", "node-b")
		server.change(func() {
			server.objects[foreign] = statusObject{Metadata: metav1.ObjectMeta{Labels: map[string]string{nodeLabel: "node-b"}}}
		})

		next.SetBGP("default/web-0", toldRouters("10.0.0.1/32", "tor1"))
		next.SetBGP("default/web-1", toldRouters("10.0.0.1/32", "tor2"))
		next.SetSessions(nil)
		go next.run(t.Context())
		synctest.Wait()
		expect(t, "before it is ready", server.wrote(), "PATCH "+announcementPath("web-1", "node-a"))
		next.SetBGP("default/web-2", nil) // not yet
		next.SetBGP("default/web-2", toldRouters("10.0.0.1/32", "tor1"))
		next.SetBGP("default/web-3", toldRouters("10.0.0.1/32", "tor1"))
		next.SetBGP("default/web-3", nil)
		time.Sleep(2 * time.Hour)
		expect(t, "before it is ready", server.wrote())
		next.ready()
		synctest.Wait()
		got := server.wrote()
		slices.Sort(got)
		expect(t, "when it is ready", got, "DELETE "+sessionsPath+"/node-a.tor1",
			"DELETE "+announcementPath("web-3", "node-a"), "DELETE "+announcementPath("web-4", "node-a"))
		if _, ok := server.objects[foreign]; !ok {
			t.Error("another node's object was deleted")
		}
	})
}

func TestStatusesWaitForTheAPI(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		s.ready()
		synctest.Wait()
		server.change(func() { server.away, server.tries = true, 0 })
		for i := range 600 {
			s.SetBGP("default/web", toldRouters("10.0.0.1/32", "tor"+strconv.Itoa(i)))
			s.SetBGP("default/gone", toldRouters("10.0.0.2/32", "tor"+strconv.Itoa(i)))
			time.Sleep(100 * time.Millisecond)
		}
		s.SetBGP("default/gone", nil)
		if server.tries > 40 {
			t.Errorf("%d tries in a minute", server.tries)
		}
		server.change(func() { server.away = false })
		time.Sleep(statusRetry)
		synctest.Wait()
		expect(t, "when it is back", server.wrote(), "PATCH "+announcementPath("web", "node-a"))
		if got := server.statusOf(announcementPath("web", "node-a")); !strings.Contains(got, "tor599") {
			t.Errorf("the status is %s", got)
		}
	})
}

func TestOneRefusedStatusHoldsNothingUp(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		s.ready()
		synctest.Wait()
		server.change(func() { server.refuse = "bad" })
		s.SetBGP("default/bad", toldRouters("10.0.0.1/32", "tor"))
		s.SetBGP("default/good", toldRouters("10.0.0.2/32", "tor"))
		synctest.Wait()
		bad, good := "PATCH "+announcementPath("bad", "node-a"), "PATCH "+announcementPath("good", "node-a")
		expect(t, "at first", server.wrote(), bad, good)
		time.Sleep(2*statusRefused + time.Second)
		expect(t, "then", server.wrote(), bad, bad)
		server.change(func() { server.refuse = "" })
		time.Sleep(10 * statusRefused)
		expect(t, "when it is not refused any more", server.wrote(), bad)
	})
}

// What many Services are told while the API is slow is written once, and sessions do not wait for them.
// What others wrote does not keep this node's statuses from being written.
func TestObjectsThatNobodyUnderstands(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		web, tor := announcementPath("web", "node-a"), sessionsPath+"/node-a.tor"
		stray, strayToo := announcementPath("stray", "node-a"), sessionsPath+"/node-a.stray"
		server.change(func() {
			for path, status := range map[string]string{web: "", stray: "", tor: `{"peer":7}`, strayToo: `{"since":"yesterday"}`} {
				name := path[strings.LastIndex(path, "/")+1:]
				namespace := ""
				if strings.Contains(path, "namespaces") {
					namespace = "default"
				}
				server.objects[path] = statusObject{
					Metadata: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{nodeLabel: "node-a"}}, Status: json.RawMessage(status),
				}
			}
		})
		s.SetBGP("default/web", toldRouters("10.0.0.1/32", "tor"))
		s.SetSessions([]v1beta1.BGPSessionStatus{{Peer: "tor", State: "Idle"}})
		go s.run(t.Context())
		synctest.Wait()
		expect(t, "at first", server.wrote(), "PATCH "+tor, "PATCH "+web)
		s.ready()
		synctest.Wait()
		expect(t, "once all is known", server.wrote(), "DELETE "+strayToo, "DELETE "+stray)
	})
}

func TestBurstOfStatuses(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		const n = 2000
		s.ready()
		synctest.Wait()
		server.mu.Lock() // the server is slow
		for round := range 3 {
			for i := range n {
				s.SetBGP(fmt.Sprintf("default/web-%d", i), toldRouters("10.0.0.1/32", "tor"+strconv.Itoa(round)))
			}
		}
		s.SetSessions([]v1beta1.BGPSessionStatus{{Peer: "tor1", State: "Active"}})
		if len(s.queue) > n {
			t.Errorf("%d wait for %d objects", len(s.queue), n)
		}
		server.mu.Unlock()
		synctest.Wait()
		written := server.wrote()
		if len(written) > n+2 || len(server.objects) != n+1 { // one may have been under way
			t.Errorf("%d writes for %d objects, %d wanted", len(written), len(server.objects), n+1)
		}
		if i := slices.Index(written, "PATCH "+sessionsPath+"/node-a.tor1"); i > 2 {
			t.Errorf("the session was written after %d Services", i)
		}
		for i := range n {
			s.SetBGP(fmt.Sprintf("default/web-%d", i), nil)
		}
		synctest.Wait()
		if len(server.objects) != 1 || len(s.items) != 1 || len(s.queue) != 0 {
			t.Errorf("left: %d objects, %d known, %d waiting", len(server.objects), len(s.items), len(s.queue))
		}
	})
}

// What others delete or change is put right: when the speaker has become active, because it may have been taken for dead before, and every
// now and then.
func TestStatusesAreMended(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		web := announcementPath("web", "node-a")
		s.SetBGP("default/web", toldRouters("10.0.0.1/32", "tor"))
		synctest.Wait()
		server.change(func() { delete(server.objects, web) })
		s.ready()
		synctest.Wait()
		expect(t, "deleted before it was ready", server.wrote(), "PATCH "+web)
		server.change(func() {
			o := server.objects[web]
			o.Status = json.RawMessage(`{"service":"web","node":"node-a","bgp":{"prefixes":["1.1.1.1/32"],"peers":[]}}`)
			server.objects[web] = o
		})
		time.Sleep(statusReview)
		synctest.Wait()
		expect(t, "changed", server.wrote(), "PATCH "+web)
		server.change(func() { delete(server.objects, web) })
		shown{s, t.Context()}.Recheck()
		time.Sleep(statusSettle)
		synctest.Wait()
		expect(t, "deleted by those who took this node for dead", server.wrote(), "PATCH "+web)
	})
}

func TestSessionsAreShown(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		tor := sessionsPath + "/node-a.tor"
		peer := "/apis/steelyard.io/v1beta1/bgppeers/tor"
		server.change(func() { server.objects[peer] = statusObject{Metadata: metav1.ObjectMeta{UID: "the-uid"}} })
		s.ready()
		begin := time.Now()
		st := v1beta1.BGPSessionStatus{Peer: "tor", Address: "192.0.2.1", PeerASN: 64512, State: "Idle", Since: metav1.NewTime(begin)}
		set := func(change func()) {
			change()
			s.SetSessions([]v1beta1.BGPSessionStatus{st})
			synctest.Wait()
		}
		became := func(state string) {
			st.State, st.Since = state, metav1.Now()
		}
		set(func() {})
		expect(t, "a session", server.wrote(), "PATCH "+tor)
		shown := server.statusOf(tor)

		// On its way up it goes through states, again and again.
		for range 10 {
			for _, state := range []string{"Connect", "Active", "OpenSent", "Idle"} {
				time.Sleep(5 * time.Second)
				set(func() { became(state) })
			}
		}
		expect(t, "on its way up", server.wrote())
		set(func() { st.LastError = "connection refused"; became("Active") })
		expect(t, "an error", server.wrote(), "PATCH "+tor)
		if want := strings.Replace(strings.Replace(shown, `"Idle"`, `"Active"`, 1), `"announced`, `"lastError":"connection refused","announced`, 1); server.statusOf(tor) != want {
			t.Errorf("%s, want %s", server.statusOf(tor), want)
		}
		if len(server.events) > 0 {
			t.Errorf("Events of a session that was never up: %q", server.events)
		}

		set(func() { became("Established") })
		up := time.Now().UTC().Format(time.RFC3339)
		written := server.wrote()
		slices.Sort(written)
		expect(t, "up", written, "PATCH "+tor, "POST /api/v1/namespaces/default/events")
		if got := server.statusOf(tor); !strings.Contains(got, `"state":"Established","since":"`+up) {
			t.Errorf("the status is %s", got)
		}
		for _, part := range []string{"BGPSessionUp", "Normal", "BGPPeer", "the-uid", "node node-a has a session with 192.0.2.1, AS 64512"} {
			if !strings.Contains(server.events[0], part) {
				t.Errorf("%q is missing from the Event %q", part, server.events[0])
			}
		}

		// A count that changes all the time is shown every now and then, and in the end as it is.
		for i := range 50 {
			set(func() { st.AnnouncedPrefixes = int32(i + 1) })
			time.Sleep(100 * time.Millisecond)
		}
		if got := server.wrote(); len(got) > 1 {
			t.Errorf("%d writes in 5 s", len(got))
		}
		time.Sleep(statusSettle)
		if got := server.statusOf(tor); !strings.Contains(got, `"announcedPrefixes":50`) {
			t.Errorf("the status is %s", got)
		}
		server.wrote()

		// What went wrong is shown at once.
		set(func() { st.BFD = &v1beta1.BFDStatus{State: "Down"} })
		expect(t, "BFD", server.wrote(), "PATCH "+tor)
		set(func() { st.LastError, st.AnnouncedPrefixes = "hold timer expired", 0; became("Idle") })
		written = server.wrote()
		slices.Sort(written)
		expect(t, "down", written, "PATCH "+tor, "POST /api/v1/namespaces/default/events")
		for _, part := range []string{"BGPSessionDown", "Warning", "node node-a has lost its session with 192.0.2.1: hold timer expired"} {
			if !strings.Contains(server.events[1], part) {
				t.Errorf("%q is missing from the Event %q", part, server.events[1])
			}
		}
		set(func() { became("Connect"); st.LastError = "no route to host" })
		set(func() {
			st.State, st.Since, st.Reason, st.LastError = "Refused", metav1.Time{}, "SameAddress", "delete one"
		})
		time.Sleep(time.Minute)
		server.wrote()
		set(func() {})
		expect(t, "refused, and nothing else", server.wrote())
		if got := server.statusOf(tor); !strings.Contains(got, `"state":"Refused","reason":"SameAddress","since":"2`) {
			t.Errorf("the status is %s", got)
		}
		s.SetSessions(nil)
		synctest.Wait()
		expect(t, "gone", server.wrote(), "DELETE "+tor)
		if len(server.events) != 2 {
			t.Errorf("%d Events", len(server.events))
		}
	})
}

// A session that goes up and down all the time is not written of all the time, and in the end it is shown as it is.
func TestRestlessSession(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		go s.run(t.Context())
		server.change(func() {
			server.objects["/apis/steelyard.io/v1beta1/bgppeers/tor"] = statusObject{Metadata: metav1.ObjectMeta{UID: "the-uid"}}
		})
		s.ready()
		const minutes = 10
		for i := range minutes * 60 {
			st := v1beta1.BGPSessionStatus{Peer: "tor", Address: "192.0.2.1", State: "Established", Since: metav1.Now()}
			if i%2 == 1 {
				st.State, st.LastError = "Active", "the router closed the connection"
			}
			s.SetSessions([]v1beta1.BGPSessionStatus{st})
			time.Sleep(time.Second)
		}
		statuses, events := 0, 0
		for _, w := range server.wrote() {
			if strings.HasPrefix(w, "PATCH") {
				statuses++
			} else {
				events++
			}
		}
		if most := statusBurst + minutes*60*2/int(statusSettle.Seconds()); statuses > most || events > most {
			t.Errorf("%d writes and %d Events in %d minutes", statuses, events, minutes)
		}
		time.Sleep(statusSettle)
		synctest.Wait()
		if got := server.statusOf(sessionsPath + "/node-a.tor"); !strings.Contains(got, `"state":"Active"`) {
			t.Errorf("in the end the status is %s", got)
		}
		server.mu.Lock()
		last := server.events[len(server.events)-1]
		server.mu.Unlock()
		if !strings.Contains(last, "BGPSessionDown") {
			t.Errorf("the last Event is %q", last)
		}

		// After a while without changes it is as good as any.
		time.Sleep(statusBurst * statusSettle)
		server.wrote()
		s.SetSessions([]v1beta1.BGPSessionStatus{{Peer: "tor", Address: "192.0.2.1", State: "Established", Since: metav1.Now()}})
		synctest.Wait()
		if got := server.wrote(); len(got) != 2 {
			t.Errorf("written of a session that is up again: %q", got)
		}
	})
}

// A restart is no news, unless the session does not come back.
func TestSessionEventsOverARestart(t *testing.T) {
	up := v1beta1.BGPSessionStatus{Peer: "tor", Address: "192.0.2.1", State: "Established"}
	coming := v1beta1.BGPSessionStatus{Peer: "tor", Address: "192.0.2.1", State: "Connect"}
	failed := v1beta1.BGPSessionStatus{Peer: "tor", Address: "192.0.2.1", State: "Active", LastError: "connection refused"}
	for name, tc := range map[string]struct {
		states []v1beta1.BGPSessionStatus
		want   string
	}{
		"it comes back":          {[]v1beta1.BGPSessionStatus{coming, up}, ""},
		"it does not":            {[]v1beta1.BGPSessionStatus{coming, failed}, "BGPSessionDown"},
		"it does after a while":  {[]v1beta1.BGPSessionStatus{coming, failed, failed, up}, "BGPSessionDown BGPSessionUp"},
		"it comes back and goes": {[]v1beta1.BGPSessionStatus{coming, up, coming}, "BGPSessionDown"},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, server *statusServer, a *api, s *statuses) {
				server.change(func() { server.objects["/apis/steelyard.io/v1beta1/bgppeers/tor"] = statusObject{} })
				s.SetSessions([]v1beta1.BGPSessionStatus{up})
				s.pass(t.Context())
				server.change(func() { server.events = nil })
				next := newStatuses(a, "node-a", quiet())
				next.SetSessions(tc.states[:1])
				go next.run(t.Context())
				for _, st := range tc.states {
					synctest.Wait()
					next.SetSessions([]v1beta1.BGPSessionStatus{st})
				}
				synctest.Wait()
				var got []string
				for _, e := range server.events {
					for _, reason := range []string{"BGPSessionDown", "BGPSessionUp"} {
						if strings.Contains(e, reason) {
							got = append(got, reason)
						}
					}
				}
				if strings.Join(got, " ") != tc.want {
					t.Errorf("Events %v, want %q", got, tc.want)
				}
			})
		})
	}
}

func TestDeadNodesAreBuried(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, a *api, s *statuses) {
		go s.run(t.Context())
		s.ready()
		s.SetBGP("default/web", toldRouters("10.0.0.1/32", "tor"))
		long := strings.Repeat("node", 40)
		for _, node := range []string{"node-b", "node-c", long} {
			other := newStatuses(a, node, quiet())
			for i := range 5 {
				other.SetBGP(fmt.Sprintf("default/web-%d", i), toldRouters("10.0.0.1/32", "tor"))
			}
			other.SetSessions([]v1beta1.BGPSessionStatus{{Peer: "tor", State: "Idle"}})
			go other.run(t.Context())
		}
		synctest.Wait()
		if len(server.objects) != 19 {
			t.Fatalf("%d objects", len(server.objects))
		}
		server.change(func() { server.away = true })
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.buryDead(t.Context(), []string{long, "node-a", "node-c"})
		}()
		time.Sleep(time.Minute)
		server.change(func() { server.away = false })
		<-done
		left := map[string]int{}
		for _, o := range server.objects {
			left[o.Metadata.Labels[nodeLabel]]++
		}
		if !maps.Equal(left, map[string]int{"node-a": 1, "node-b": 6}) {
			t.Errorf("left: %v", left)
		}
		s.buryUnknown(t.Context(), []string{"node-a", "node-b"})
		if len(server.objects) != 7 {
			t.Errorf("%d objects are left of nodes that are known", len(server.objects))
		}
		// A list that is out of date does no harm: node-b has come since.
		server.change(func() { server.objects["/api/v1/nodes/node-b"] = statusObject{} })
		s.buryUnknown(t.Context(), []string{"node-x"})
		if len(server.objects) != 8 {
			t.Errorf("%d objects are left of nodes that there are", len(server.objects))
		}
		server.change(func() { delete(server.objects, "/api/v1/nodes/node-b") })
		s.buryUnknown(t.Context(), []string{"node-x"})
		if len(server.objects) != 1 {
			t.Errorf("%d objects are left", len(server.objects))
		}
	})
}

// Nodes that come and go while objects can't be deleted do not make more and more of the attempts.
func TestOneBurialAtATime(t *testing.T) {
	inTime(t, func(t *testing.T, server *statusServer, _ *api, s *statuses) {
		server.away = true
		for i := range 100 {
			shown{s, t.Context()}.Keep([]string{"node-a", fmt.Sprintf("node-%d", i)})
			synctest.Wait()
		}
		server.mu.Lock()
		before := server.tries
		server.mu.Unlock()
		time.Sleep(10 * statusRefused)
		synctest.Wait()
		server.mu.Lock()
		defer server.mu.Unlock()
		if n := server.tries - before; n < 9 || n > 30 {
			t.Errorf("%d requests in %v", n, 10*statusRefused)
		}
	})
}

func TestStatusNames(t *testing.T) {
	long := strings.Repeat("n", 250) + ".x"
	a, b := newStatuses(nil, "a", quiet()), newStatuses(nil, "a.b", quiet())
	if x, y := a.sessionKey("b.c"), b.sessionKey("c"); x == y {
		t.Errorf("node a's peer b.c and node a.b's peer c have one object, %v", x)
	}
	x, _ := newStatuses(nil, long+"1", quiet()).announcementKey("default/web")
	y, service := newStatuses(nil, long+"2", quiet()).announcementKey("default/web")
	if x == y || len(x.name) > 253 || x.namespace != "default" || service != "web" {
		t.Errorf("%v and %v", x, y)
	}
	if v := nodeLabelValue(long); len(v) > 63 || strings.Contains(v, ".-") {
		t.Errorf("label %q", v)
	}
}
