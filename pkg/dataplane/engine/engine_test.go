package engine

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/conntrack"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

func TestNothingIsProgrammedBeforeStart(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		n.set(service("web", "10.96.0.1", "198.51.100.1"))
		time.Sleep(time.Hour)
		n.expect()
		n.expectCarries("198.51.100.1", false)
		n.Start()
		n.expect("full")
		n.expectCarries("198.51.100.1", true)
	})
}

func TestChangesAreBatched(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		n.Start()
		time.Sleep(time.Second)
		n.expect("full")

		// The first after quiet goes at once, what follows waits for the interval.
		start := time.Now()
		n.set(service("a", "10.96.0.1"))
		n.settle()
		for i := range 100 {
			n.set(service("b", "10.96.0.2"))
			n.endpoints("b", fmt.Sprintf("10.1.0.%d", i))
			n.set(service("c", "10.96.0.3"))
			n.settle()
		}
		time.Sleep(n.MinInterval)
		n.settle()
		if at := n.kernel.syncs[0].at; !at.Equal(start) {
			t.Errorf("the first change waited %s", at.Sub(start))
		}
		if at := n.kernel.syncs[1].at; at.Sub(start) != n.MinInterval {
			t.Errorf("the second sync came after %s", at.Sub(start))
		}
		n.expect("default/a", "default/b default/c")

		// What changes nothing costs nothing.
		time.Sleep(time.Second)
		n.set(service("c", "10.96.0.3"))
		n.expect()
		if !n.Settled() {
			t.Error("not settled")
		}
	})
}

func TestFailuresAreRetriedInFull(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		n.set(service("web", "10.96.0.1", "198.51.100.1"))
		n.set(service("other", "10.96.0.2", "198.51.100.2"))
		n.Start()
		n.settle()
		time.Sleep(time.Second)
		n.kernel.calls()

		n.kernel.breakDown(errors.New("no buffer space available"))
		n.endpoints("web", "10.1.0.1")
		n.expect("default/web", "full")
		n.expectCarries("198.51.100.1", false)
		n.expectCarries("198.51.100.2", true) // its rules are what they were
		time.Sleep(backoffMin)
		n.expect("full")
		time.Sleep(patience - time.Second)
		if ok, _ := n.Healthy(); !ok {
			t.Error("unhealthy too early")
		}
		time.Sleep(2 * time.Second)
		if ok, details := n.Healthy(); ok || details == "" {
			t.Error("healthy, though a change waits for more than a minute")
		}
		if len(n.kernel.calls()) > 10 {
			t.Error("no backing off")
		}

		n.kernel.breakDown(nil)
		time.Sleep(backoffMax)
		n.expect("full")
		n.expectCarries("198.51.100.1", true)
		if ok, _ := n.Healthy(); !ok || !n.Settled() {
			t.Error("not healthy again")
		}
		time.Sleep(time.Second)
		n.endpoints("web", "10.1.0.2")
		n.expect("default/web")
	})
}

func TestRulesThatVanishComeBack(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		n.set(service("web", "10.96.0.1", "198.51.100.1"))
		n.Start()
		n.expect("full")
		n.kernel.destroy()
		time.Sleep(n.checkInterval() + time.Second)
		n.expect("full")
		if got := n.kernel.services(); !slices.Equal(got, []string{"default/web"}) {
			t.Errorf("rules for %q", got)
		}

		// While they can't come back, no address is carried.
		n.kernel.destroy()
		n.kernel.breakDown(errors.New("operation not permitted"))
		n.expectCarries("198.51.100.1", true)
		time.Sleep(n.checkInterval() + time.Second)
		n.expectCarries("198.51.100.1", false)
		n.kernel.breakDown(nil)
		time.Sleep(backoffMax)
		n.expectCarries("198.51.100.1", true)
	})
}

func TestRulesThatSomebodyIsSeenToChangeComeBackAtOnce(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		n.set(service("web", "10.96.0.1"))
		n.Start()
		n.expect("full")
		time.Sleep(time.Second)

		n.kernel.destroy()
		n.changes <- monitor.Change{Family: dataplane.IPv4, Table: "filter", Program: "nft"} // not about us
		n.expect()
		n.changes <- monitor.Change{Family: dataplane.IPv4, Table: "steelyard", Program: "nft", Gone: true}
		n.expect("full")

		// Whatever is changed in our table is undone, though at the first glance nothing is amiss; but not too often.
		start := time.Now()
		for range 100 {
			n.changes <- monitor.Change{Family: dataplane.IPv4, Table: "steelyard", Program: "nft"}
		}
		n.expect()
		time.Sleep(noticeInterval)
		n.expect("full")
		n.kernel.destroy()
		n.changes <- monitor.Change{Lost: true}
		time.Sleep(2*time.Second - time.Since(start))
		n.expect("full")
		close(n.changes)
		n.expect()
	})
}

func TestPause(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		n.Pause()
		n.set(service("web", "10.96.0.1", "198.51.100.1"))
		n.Start()
		n.expect()
		if n.kernel.removed != 1 { // what an earlier process left
			t.Errorf("removed %d times", n.kernel.removed)
		}
		n.Resume()
		n.expect("full")
		n.expectCarries("198.51.100.1", true)

		time.Sleep(time.Second)
		n.kernel.breakDown(errors.New("device or resource busy"))
		n.Pause()
		n.expectCarries("198.51.100.1", false)
		n.kernel.breakDown(nil)
		time.Sleep(backoffMin)
		n.settle()
		n.set(service("late", "10.96.0.2"))
		time.Sleep(time.Hour)
		n.expect()
		if got := n.kernel.services(); n.kernel.removed != 2 || len(got) > 0 {
			t.Errorf("removed %d times, rules for %q", n.kernel.removed, got)
		}
		if ok, _ := n.Healthy(); !ok {
			t.Error("unhealthy because another proxy does the work")
		}
		n.Resume()
		if ok, _ := n.Healthy(); !ok {
			t.Error("what happened during the pause counts as late")
		}
		n.expect("full")
		if got := n.kernel.services(); !slices.Equal(got, []string{"default/late", "default/web"}) {
			t.Errorf("rules for %q", got)
		}
		n.expectCarries("198.51.100.1", true)
	})
}

func TestCarriesFollowsEachAddress(t *testing.T) {
	run(t, dataplane.LoadBalancer, func(n *node) {
		n.SetServed(func(a netip.Addr) bool { return a == addr("198.51.100.1") })
		n.set(service("web", "10.96.0.1", "198.51.100.1"))
		n.Start()
		n.expectCarries("198.51.100.1", true)
		n.expectCarries("198.51.100.9", false) // nobody has it
		time.Sleep(time.Second)

		// A second Service at the address that the kernel does not take yet makes the address wait; a second address does not.
		n.kernel.breakDown(errors.New("no"))
		shares := func(address string) *corev1.Service {
			svc := service("shares", "10.96.0.2", address)
			svc.Spec.Ports[0].Port = 443 // at another port, or it would be in the first one's way
			return svc
		}
		n.set(shares("198.51.100.1"))
		if n.Carries(addr("198.51.100.1")) {
			t.Error("carried before the rules of both Services were there")
		}
		n.set(shares("198.51.100.2"))
		n.expectCarries("198.51.100.1", true)
		n.kernel.breakDown(nil)
		time.Sleep(backoffMax)
		n.expectCarries("198.51.100.2", true)

		// An address that is ours from now on waits for its rules, the others are not disturbed.
		n.settle()
		n.kernel.breakDown(errors.New("no"))
		n.SetServed(func(netip.Addr) bool { return true })
		if !n.Carries(addr("198.51.100.1")) || n.Carries(addr("198.51.100.2")) {
			t.Error("the wrong address waits for its rules")
		}
		n.kernel.breakDown(nil)
		time.Sleep(backoffMax)
		n.expectCarries("198.51.100.2", true)

		n.DeleteService("default/shares")
		n.expectCarries("198.51.100.2", false)
		select {
		case <-n.Changed():
		default:
			t.Error("nobody was told")
		}
	})
}

func TestForeignServicesDoNotHoldAnAddressBack(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		svc := service("web", "10.96.0.1", "198.51.100.1")
		svc.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
		n.set(svc)
		n.Start()
		n.expectCarries("198.51.100.1", true)
		if got := n.kernel.services(); len(got) > 0 {
			t.Errorf("rules for %q", got)
		}
	})
}

func TestUDPFlowsFollowTheRules(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	flow := conntrack.Entry{Dst: at("10.96.0.1:80"), Server: at("10.1.0.1:8080")}
	nobody := func(netip.Addr) bool { return false }
	run(t, dataplane.Full, func(n *node) {
		expect := func(what string, stale ...bool) {
			t.Helper()
			time.Sleep(n.MinInterval)
			n.settle()
			n.mu.Lock()
			defer n.mu.Unlock()
			var got []bool
			for _, s := range n.cleaned {
				got = append(got, s.Stale(flow, nobody))
			}
			if n.cleaned = nil; !slices.Equal(got, stale) {
				t.Errorf("%s: flow found stale: %v, want %v", what, got, stale)
			}
		}
		n.set(service("udp", "10.96.0.1"))
		n.set(service("web", "10.96.0.7"))
		n.endpoints("udp", "10.1.0.1")
		n.Start()
		expect("start", false)
		n.endpoints("web", "10.1.0.9")
		expect("a Service without UDP")
		n.set(service("udp", "10.96.0.1"))
		expect("nothing new")
		n.endpoints("udp", "10.1.0.1", "10.1.0.2")
		expect("one more endpoint", false)
		n.endpoints("udp", "10.1.0.2")
		expect("the endpoint leaves", true)
		n.endpoints("udp")
		expect("no endpoint", true)
		n.endpoints("udp", "10.1.0.1")
		expect("it comes back", false)
		n.DeleteService("default/udp")
		expect("the Service is deleted", true)
		n.set(service("udp", "10.96.0.1"))
		expect("and comes back", false)
		n.endpoints("web", "10.1.0.8")
		n.settle() // what follows comes together, once the interval is over
		n.DeleteService("default/udp")
		n.set(service("udp2", "10.96.0.1"))
		n.endpoints("udp2", "10.1.0.1")
		expect("another Service has the address and the endpoint", false)

		n.mu.Lock()
		n.noClean = errors.New("interrupted system call")
		n.mu.Unlock()
		n.endpoints("udp2")
		expect("the table can't be read")
		n.mu.Lock()
		n.noClean = nil
		n.mu.Unlock()
		time.Sleep(tidyAgain)
		expect("now it can", true)
	})
}

func TestNodeChanges(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		probe := func(path string) int {
			w := httptest.NewRecorder()
			n.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			return w.Code
		}
		expect := func(what string, healthz int) {
			t.Helper()
			n.settle()
			if h, l := probe("/healthz"), probe("/livez"); h != healthz || l != http.StatusOK {
				t.Errorf("%s: /healthz says %d, /livez %d", what, h, l)
			}
		}
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.1.0.0/24", PodCIDRs: []string{"10.1.0.0/24"}}}
		n.Start()
		n.expect("full")
		expect("no Node yet", http.StatusServiceUnavailable)
		time.Sleep(time.Second)

		n.SetNode(node)
		expect("a Node", http.StatusOK)
		n.expect("full") // pod addresses matter to all rules
		tainted := node.DeepCopy()
		tainted.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
		n.SetNode(tainted)
		expect("about to be deleted", http.StatusServiceUnavailable)
		n.SetNode(node)
		expect("spared", http.StatusOK)
		n.DeleteNode()
		expect("deleted", http.StatusServiceUnavailable)
		n.expect()
	})
}

func TestConflictsAreToldOnce(t *testing.T) {
	run(t, dataplane.Full, func(n *node) {
		old, young := service("a", "10.96.0.1", "198.51.100.1"), service("b", "10.96.0.2", "198.51.100.1")
		n.set(old)
		n.set(young)
		n.Start()
		n.settle()
		time.Sleep(time.Second)
		n.endpoints("b", "10.1.0.1")
		n.settle()
		n.mu.Lock()
		defer n.mu.Unlock()
		if want := []string{"default/b AddressInUse"}; !slices.Equal(n.events, want) {
			t.Errorf("events: got %q, want %q", n.events, want)
		}
	})
}
