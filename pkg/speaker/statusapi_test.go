package speaker

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

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
