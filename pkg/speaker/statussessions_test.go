package speaker

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

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
