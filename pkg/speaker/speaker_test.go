package speaker

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

var (
	v4 = netip.MustParseAddr("10.0.0.1")
	v6 = netip.MustParseAddr("2001:db8::1")
)

func TestFreshAddressIsProbedThenAnnounced(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}, "node-b")
		time.Sleep(250 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer before the probe is over", owners)
		}
		time.Sleep(100 * time.Millisecond)
		if w.owner(v4) != w.owner(v6) {
			t.Errorf("one Service's addresses are at %s and %s", w.owner(v4), w.owner(v6))
		}
		for _, a := range []netip.Addr{v4, v6} {
			if w.bursts(a) != 1 || w.neighbour(a) != w.owner(a) {
				t.Errorf("%v: %d bursts, the client's table says %q", a, w.bursts(a), w.neighbour(a))
			}
		}
	})
}

func TestManyAddressesSpreadEvenly(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.lag = func(node string) time.Duration { return time.Duration(node[5]-'a') * 7 * time.Millisecond }
		addrs := w.servicesWithAddresses(100)
		time.Sleep(2 * time.Second)
		for name, n := range w.loads(addrs) {
			if n < 31 || n > 36 {
				t.Errorf("%s has %d of 100 addresses", name, n)
			}
		}
		for _, a := range addrs {
			if w.bursts(a) != 1 {
				t.Errorf("%v was announced %d times", a, w.bursts(a))
			}
		}
	})
}

func TestNobodyEligible(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		first, bursts := w.owner(v4), w.bursts(v4)

		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}})
		time.Sleep(10 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer though no endpoint serves", owners)
		}
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-b")
		time.Sleep(10 * time.Millisecond)
		if now := w.owner(v4); now != first || w.bursts(v4) != bursts {
			t.Errorf("it went from %s to %s (%d bursts more) because its endpoint restarted", first, now, w.bursts(v4)-bursts)
		}
	})
}

func TestPolicyLocalFollowsTheEndpoint(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		svc := Service{Name: "default/web", Addrs: []netip.Addr{v4}, Local: true}
		w.serve(svc, "node-c")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-c" {
			t.Errorf("it is at %s", owner)
		}
		from := time.Now()
		w.serve(svc, "node-a")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-a" || w.gap(v4, from) > 0 {
			t.Errorf("it is at %s, after a gap of %v", owner, w.gap(v4, from))
		}
	})
}

func TestServiceGoesAway(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		w.delete("default/web")
		time.Sleep(10 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v still answer", owners)
		}
		for name := range w.running {
			if c := w.claims(name)[v4]; c.Owner != "" {
				t.Errorf("%s thinks that %s holds the address", name, c.Owner)
			}
		}
		// The address is fresh again, and so it is probed.
		w.serve(Service{Name: "default/other", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(200 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer before a probe", owners)
		}
		time.Sleep(time.Second)
		w.owner(v4)
	})
}

func TestSharedAddressMovesAsOne(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		other := netip.MustParseAddr("10.0.0.2")
		w.serve(Service{Name: "default/one", Addrs: []netip.Addr{v4}, Shared: true}, "node-a")
		w.serve(Service{Name: "default/far", Addrs: []netip.Addr{other}, Shared: true}, "node-a")
		time.Sleep(time.Second)
		// This one ties the two others together.
		w.serve(Service{Name: "default/both", Addrs: []netip.Addr{v4, other, v6}, Shared: true}, "node-c")
		time.Sleep(time.Second)
		if w.owner(v4) != w.owner(v6) || w.owner(v4) != w.owner(other) {
			t.Errorf("they are at %s, %s and %s", w.owner(v4), w.owner(other), w.owner(v6))
		}
		w.delete("default/one")
		time.Sleep(time.Second)
		w.owner(v4)
		w.delete("default/both")
		time.Sleep(time.Second)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer for an address without a Service", owners)
		}
		w.owner(other)
	})
}

func TestSharerGoesAway(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/one", Addrs: []netip.Addr{v4}, Shared: true, Local: true}, "node-a")
		w.serve(Service{Name: "default/two", Addrs: []netip.Addr{v4}, Shared: true, Local: true}, "node-c")
		time.Sleep(time.Second)
		first, rest := w.owner(v4), map[string]string{"node-a": "node-c", "node-c": "node-a"}
		w.delete(map[string]string{"node-a": "default/one", "node-c": "default/two"}[first])
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != rest[first] {
			t.Errorf("it is at %s, where no endpoint is", owner)
		}
	})
}

func TestInterfaceSelectors(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.running["node-b"].layer2.carrier("eth0", "eth1")
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = []*config.L2Advertisement{{Pools: []string{"pool"}, Interfaces: []string{"eth1"}}}
		})
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-b" {
			t.Errorf("it is at %s, which has no eth1", owner)
		}
		interfaces := func() []string {
			w.lan.mu.Lock()
			defer w.lan.mu.Unlock()
			return w.running["node-b"].layer2.vips[v4].Interfaces
		}
		if got := interfaces(); !slices.Equal(got, []string{"eth1"}) {
			t.Errorf("it is answered on %v", got)
		}
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = append(c.L2Advertisements, &config.L2Advertisement{Pools: []string{"pool"}, Interfaces: []string{"eth0"}})
		})
		time.Sleep(10 * time.Millisecond)
		if got := interfaces(); w.owner(v4) != "node-b" || !slices.Equal(got, []string{"eth0", "eth1"}) {
			t.Errorf("it is answered by %s on %v", w.owner(v4), got)
		}
		w.setConfig(func(c *config.Config) { c.L2Advertisements = c.L2Advertisements[:1] })
		w.running["node-b"].layer2.carrier("eth0")
		time.Sleep(10 * time.Millisecond)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer, though no node has eth1", owners)
		}
	})
}

func TestPreferredNodeTakesItBack(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		selector, err := labels.Parse("name=node-c")
		if err != nil {
			t.Fatal(err)
		}
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = []*config.L2Advertisement{{Pools: []string{"pool"}, Preferred: []config.PreferredNodes{{Weight: 5, Selector: selector}}}}
		})
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner != "node-c" {
			t.Fatalf("it is at %s", owner)
		}
		w.powerOff("node-c")
		time.Sleep(time.Second)
		if owner := w.owner(v4); owner == "node-c" {
			t.Fatalf("it is at %s", owner)
		}
		from := time.Now()
		w.start("node-c")
		time.Sleep(3 * time.Second)
		if owner := w.owner(v4); owner != "node-c" || w.gap(v4, from) > 0 {
			t.Errorf("it is at %s after a gap of %v", owner, w.gap(v4, from))
		}
	})
}
