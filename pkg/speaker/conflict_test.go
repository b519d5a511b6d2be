package speaker

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestStrangerHasTheAddress(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.lan.mu.Lock()
		w.lan.strangers[v4] = net.HardwareAddr{0xde, 0xad, 0xbe, 0xef, 0, 1}
		w.lan.mu.Unlock()
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4, v6}}, "node-a")
		time.Sleep(10 * time.Second)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer for a stranger's address", owners)
		}
		w.owner(v6)
		complaint := w.complaint("default/web")
		if !strings.Contains(complaint, "de:ad:be:ef:00:01") || !strings.Contains(complaint, v4.String()) || strings.Contains(complaint, v6.String()) {
			t.Errorf("the condition says %q", complaint)
		}

		// The stranger stays, and whoever is responsible does not: nobody gets used to it, and nothing is said twice.
		for _, p := range w.running {
			p.speaker.mu.Lock()
			held := p.speaker.held[v4] != nil
			p.speaker.mu.Unlock()
			if held {
				w.powerOff(p.speaker.config.Node)
				break
			}
		}
		time.Sleep(2 * time.Minute)
		if owners := w.owners(v4); len(owners) > 0 {
			t.Errorf("%v answer for a stranger's address after a node's death", owners)
		}
		if events := w.reporter.all(); len(events) != 1 {
			t.Errorf("Events: %v, want one", events)
		}

		w.lan.mu.Lock()
		delete(w.lan.strangers, v4)
		w.lan.mu.Unlock()
		time.Sleep(reprobe + time.Second)
		w.owner(v4)
		if complaint := w.complaint("default/web"); complaint != "" {
			t.Errorf("the condition still says %q", complaint)
		}
	})
}

// Two speakers may probe one address at the same time, before they have heard of each other.
func TestProbeMeetsAProbe(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		w.lan.mu.Lock()
		w.lan.strangers[v4] = net.HardwareAddr{2, 0, 0, 0, 9, 9}
		w.lan.mu.Unlock()
		w.serve(Service{Name: "default/web", Addrs: []netip.Addr{v4}}, "node-a")
		time.Sleep(250 * time.Millisecond)
		w.lan.mu.Lock()
		delete(w.lan.strangers, v4)
		w.lan.mu.Unlock()
		time.Sleep(time.Second)
		w.owner(v4)
		if events := w.reporter.all(); len(events) > 0 {
			t.Errorf("users were told: %v", events)
		}
	})
}

func TestSpeakersDisagree(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		svc := Service{Name: "default/web", Addrs: []netip.Addr{v4}, Local: true}
		w.serve(svc, "node-a")
		time.Sleep(time.Second)
		// node-a does not hear that the endpoint has moved, and node-b that it has moved back.
		w.cutOff["node-a"] = true
		w.serve(svc, "node-b")
		before := w.bursts(v4)
		time.Sleep(20 * time.Second)
		if n := w.bursts(v4) - before; n > 11 {
			t.Errorf("the address moved %d times in 20 s", n)
		}
		if owners := w.owners(v4); len(owners) == 0 {
			t.Error("nobody answers")
		}
	})
}
