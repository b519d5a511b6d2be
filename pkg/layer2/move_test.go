package layer2

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestClientFollowsTheAddress(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client := newClient(t, n)
	nodes := []*host{newNode(t, n, "node1"), newNode(t, n, "node2")}
	var announcers []*Announcer
	for _, h := range nodes {
		a, _ := h.announcer(Config{Ours: ours(nodes...)})
		announcers = append(announcers, a)
		ready(t, a, quietly(fence4, fence6), "eth0")
	}
	ready(t, announcers[0], quietly(vip4, vip6), "eth0")
	for _, addr := range []netip.Addr{vip4, vip6} {
		client.resolves("eth0", addr, nodes[0].mac("eth0"))
	}
	// The client sends nothing from here on: what it learns, it is told.
	for burst := range uint64(6) {
		next := int(burst+1) % 2
		announcers[next].Sync([]Announcement{{Addr: vip4, Burst: burst + 1}, {Addr: vip6, Burst: burst + 1}})
		announcers[1-next].Sync(nil)
		for _, addr := range []netip.Addr{vip4, vip6} {
			eventually(t, fmt.Sprintf("move %d: the client's neighbour %s is %s", burst, addr, nodes[next].name), func() bool {
				got, _ := client.neighbour("eth0", addr)
				return got == nodes[next].mac("eth0")
			})
		}
	}
	for i, a := range announcers {
		select {
		case c := <-a.Conflicts():
			t.Errorf("%s takes the other node for a conflict: %+v", nodes[i].name, c)
		default:
		}
	}
}

func TestQuietStartAndBurst(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	tap := client.tap("eth0")
	registry := prometheus.NewRegistry()
	a, _ := node.announcer(Config{Registerer: registry})
	ready(t, a, quietly(vip4, vip6), "eth0")
	// Announcements are made in the order in which they are called for, so whatever there was comes before that of the fence.
	for addr, fence := range map[netip.Addr]netip.Addr{vip4: fence4, vip6: fence6} {
		a.Sync(append(quietly(vip4, vip6), Announcement{Addr: fence, Burst: 1}))
		if got := tap.claimsBefore(addr, fence); len(got) > 0 {
			t.Errorf("%d announcements of %s, which is not new here", len(got), addr)
		}
	}
	frames := map[netip.Addr]int{vip4: 2, vip6: 1}
	for addr, fence := range map[netip.Addr]netip.Addr{vip4: fence4, vip6: fence6} {
		a.Sync(quietly(addr))
		owner := Announcement{Addr: addr, Burst: 7}
		a.Sync([]Announcement{owner})
		a.Sync([]Announcement{owner})
		rounds := len(burstGaps) + 1
		for i := range rounds * frames[addr] {
			h, frame := tap.next()
			for h.claims != addr {
				h, frame = tap.next()
			}
			if to := mac(frame[0:6]); to != broadcast && to != multicastMAC(allNodes) {
				t.Errorf("announcement %d of %s goes to %s", i, addr, to)
			}
		}
		eventually(t, "all are counted", func() bool {
			return counter(t, registry, "steelyard_layer2_gratuitous_sent_total", addr) == float64(rounds*frames[addr])
		})
		a.Sync([]Announcement{owner, {Addr: fence, Burst: 1}})
		if got := tap.claimsBefore(addr, fence); len(got) > 0 {
			t.Errorf("%d announcements of %s after its burst", len(got), addr)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	client, node := newClient(t, n), newNode(t, n, "node")
	registry := prometheus.NewRegistry()
	a, _ := node.announcer(Config{Registerer: registry})
	ready(t, a, quietly(vip4, fence4), "eth0")
	tap := client.tap("eth0")
	for range 3 {
		tap.answers(tap.ask(vip4), vip4, fence4)
	}
	for name, want := range map[string]float64{
		"steelyard_layer2_requests_received_total": 3,
		"steelyard_layer2_responses_sent_total":    3,
		"steelyard_layer2_gratuitous_sent_total":   0,
		"steelyard_layer2_conflicts_total":         0,
	} {
		if got := counter(t, registry, name, vip4); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	a.Sync(quietly(fence4))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if got := counter(t, registry, f.GetName(), vip4); got != -1 {
			t.Errorf("%s is still there after the address was withdrawn", f.GetName())
		}
	}
}

// counter returns the value of the series of addr, -1 when there is none.
func counter(t *testing.T, r *prometheus.Registry, name string, addr netip.Addr) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == addr.String() {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}
