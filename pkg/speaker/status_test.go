package speaker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	sessionsPath      = "/apis/steelyard.io/v1beta1/bgpsessions"
	announcementsPath = "/apis/steelyard.io/v1beta1/serviceannouncements"
)

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

// What many Services are told while the API is slow is written once, and sessions do not wait for them.
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
