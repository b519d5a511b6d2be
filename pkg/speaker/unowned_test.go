package speaker

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// expectComplaint checks the Service's condition, and how often it was written and an Event made until now, by all speakers together.
func (w *world) expectComplaint(why, service, part string, writes, events int) {
	w.t.Helper()
	got := w.complaint(service)
	if (part == "") != (got == "") || !strings.Contains(got, part) {
		w.t.Errorf("%s: the condition says %q, want %q", why, got, part)
	}
	if n, m := w.reporter.counts(); n != writes || m != events {
		w.t.Errorf("%s: %d writes and %d Events, want %d and %d: %v", why, n, m, writes, events, w.reporter.all())
	}
}

func TestNobodyMayAnnounce(t *testing.T) {
	web := Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}
	inWorld(t, 3, func(t *testing.T, w *world) {
		ads := w.config.L2Advertisements
		w.setConfig(func(c *config.Config) { c.L2Advertisements = nil })
		w.serve(web, "node-a")
		time.Sleep(grief - time.Second)
		w.expectComplaint("just now", web.Name, "", 0, 0)
		time.Sleep(2 * time.Second)
		w.expectComplaint("after a while", web.Name, "Nobody announces 10.0.0.1 and 2001:db8::1: no L2Advertisement and no BGPAdvertisement", 1, 1)
		if event := w.reporter.all()[0]; !strings.HasPrefix(event, "default/web NoAdvertisement: Nobody") {
			t.Errorf("the Event is %q", event)
		}
		for name, p := range w.running {
			registry := prometheus.NewRegistry()
			registry.MustRegister(&announced{p.speaker})
			if got, want := exposed(t, registry, `steelyard_unowned_addresses{reason="NoAdvertisement"}`), `steelyard_unowned_addresses{reason="NoAdvertisement"} 2`; !slices.Contains(got, want) {
				t.Errorf("%s counts %q, want %q", name, got, want)
			}
		}

		w.setNode(Node{Name: "node-b", Labels: labels.Set{"new": "label"}})
		time.Sleep(2 * amends)
		w.expectComplaint("the same", web.Name, "no L2Advertisement", 1, 1)

		w.powerOff("node-a") // which has written it
		time.Sleep(grief)
		w.setConfig(func(c *config.Config) { c.L2Advertisements = ads })
		time.Sleep(time.Second)
		w.owner(v4)
		if got := w.complaint(web.Name); got != "" {
			t.Errorf("announced, and the condition still says %q", got)
		}
	})
}

func TestABlinkIsNoComplaint(t *testing.T) {
	web := Service{Name: "default/web", Addrs: []netip.Addr{v4}}
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(web, "node-a")
		for range 20 {
			time.Sleep(time.Second)
			w.serve(web)
			time.Sleep(grief / 2)
			w.serve(web, "node-a")
		}
		time.Sleep(time.Second)
		w.expectComplaint("an endpoint that restarts", web.Name, "", 0, 0)
		w.serve(web)
		time.Sleep(2 * grief)
		w.expectComplaint("no endpoint", web.Name, "no endpoint of the Service serves", 1, 1)
	})
}

// TestOneSharerIsEnough: a Service whose address is announced for another's sake is not complained of.
func TestOneSharerIsEnough(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}, Shared: true}, "node-a")
		w.serve(Service{Name: "default/idle", Addrs: []netip.Addr{v4}, Shared: true})
		time.Sleep(2 * grief)
		w.expectComplaint("one serves", "default/idle", "", 0, 0)
		w.delete("default/web")
		time.Sleep(2 * grief)
		w.expectComplaint("alone", "default/idle", "no endpoint", 1, 1)
	})
}

func TestBGPIsEnough(t *testing.T) {
	web := Service{Name: "default/web", Addrs: []netip.Addr{v4}}
	inWorld(t, 3, func(t *testing.T, w *world) {
		selector, err := labels.Parse("name in (node-b, node-c)")
		if err != nil {
			t.Fatal(err)
		}
		w.setConfig(func(c *config.Config) {
			c.L2Advertisements = nil
			c.BGPAdvertisements = []*config.BGPAdvertisement{{Name: "all", Pools: []string{"pool"}, Length4: 32, Length6: 128}}
			c.BGPPeers = []*config.BGPPeer{tor()}
			c.BGPPeers[0].Nodes = []labels.Selector{selector}
		})
		w.serve(web, "node-a")
		time.Sleep(2 * grief)
		w.expectComplaint("two nodes may", web.Name, "", 0, 0)
		w.powerOff("node-b")
		time.Sleep(2 * grief)
		w.expectComplaint("one node may", web.Name, "", 0, 0)
		excluded := Node{Name: "node-c", Labels: labels.Set{"name": "node-c"}, Excluded: true}
		w.setNode(excluded)
		time.Sleep(2 * grief)
		w.expectComplaint("none may", web.Name, "To routers, by BGPAdvertisement all: node-a (the node has a session with none of the BGPPeers", 1, 1)

		// It is told again when more is wrong, not all the time, and without another Event.
		for range 10 {
			excluded.NetworkUnavailable = !excluded.NetworkUnavailable
			w.setNode(excluded)
			time.Sleep(time.Second)
		}
		excluded.NetworkUnavailable = true
		w.setNode(excluded)
		time.Sleep(amends)
		w.expectComplaint("none may, for another reason", web.Name, "node-c (the node's condition NetworkUnavailable", 2, 1)

		w.setNode(Node{Name: "node-c", Labels: labels.Set{"name": "node-c"}})
		time.Sleep(100 * time.Millisecond)
		w.expectComplaint("one may again", web.Name, "", 3, 1)
	})
}

// TestAMinorityDoesNotComplain: who is parted from most of the others does not know what they may do, and the majority is not contradicted.
func TestAMinorityDoesNotComplain(t *testing.T) {
	web := Service{Name: "default/web", Addrs: []netip.Addr{v4}, Local: true}
	for endpoint, told := range map[string]struct {
		part                   string
		parted, writes, events int
	}{
		"node-a": {"node-a (no live speaker", 1, 2, 1},
		"node-c": {"", 0, 0, 0},
	} {
		t.Run(endpoint, func(t *testing.T) {
			inWorld(t, 3, func(t *testing.T, w *world) {
				w.serve(web, endpoint)
				time.Sleep(2 * steady)
				w.hub.split("node-a")
				time.Sleep(10 * amends)
				w.expectComplaint("parted", web.Name, told.part, told.parted, told.events)
				w.hub.heal()
				time.Sleep(2 * steady)
				w.expectComplaint("together again", web.Name, "", told.writes, told.events)
			})
		})
	}
}

func TestComplaintsGoWithWhatTheyAreAbout(t *testing.T) {
	web := Service{Name: "default/web", Addrs: []netip.Addr{v4}}
	for name, change := range map[string]func(*world){
		"the address goes": func(w *world) {
			w.serve(Service{Name: web.Name, Complaint: "nobody", ComplaintReason: announce.NoServingEndpoint})
		},
		"the Service gets another type": func(w *world) { w.delete(web.Name) },
		"the pool goes":                 func(w *world) { w.setConfig(func(c *config.Config) { c.Pools = nil }) },
		"an endpoint serves":            func(w *world) { w.serve(w.services[web.Name], "node-a") },
		"a stranger's, when BGP is enough": func(w *world) {
			stale := web
			stale.Complaint, stale.ComplaintReason = "a stranger has it", announce.AddressConflict
			w.setConfig(func(c *config.Config) {
				c.L2Advertisements = nil
				c.BGPAdvertisements = []*config.BGPAdvertisement{{Name: "all", Pools: []string{"pool"}, Length4: 32, Length6: 128}}
				c.BGPPeers = []*config.BGPPeer{tor()}
			})
			w.serve(stale, "node-a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(t *testing.T, w *world) {
				w.serve(web)
				time.Sleep(2 * grief)
				w.expectComplaint("no endpoint", web.Name, "no endpoint", 1, 1)
				change(w)
				time.Sleep(time.Second)
				w.reporter.mu.Lock()
				defer w.reporter.mu.Unlock()
				if got := w.reporter.conditions[web.Name]; got != "" {
					t.Errorf("the condition still says %q", got)
				}
			})
		})
	}
}
