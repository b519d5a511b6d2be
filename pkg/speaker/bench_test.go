package speaker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
	"github.com/steelyard-lb/steelyard/pkg/membership"
)

// still is a membership and a layer 2 that take everything and do nothing, so that only the speaker's own work is measured.
type still struct {
	members []membership.Member
	sent    int
}

func (m *still) Members() []membership.Member               { return m.members }
func (m *still) Changed() <-chan struct{}                   { return nil }
func (m *still) Settled() <-chan struct{}                   { return nil }
func (*still) PowerLost() []string                          { return nil }
func (m *still) Quorum() bool                               { return true }
func (m *still) Broadcast([]byte)                           { m.sent++ }
func (m *still) Update(bool, []net.HardwareAddr, []string)  {}
func (m *still) Leave(context.Context) error                { return nil }
func (m *still) Sync([]layer2.Announcement) []layer2.Status { return nil }
func (m *still) Conflicts() <-chan layer2.Conflict          { return nil }
func (m *still) Interfaces() []layer2.Interface {
	return []layer2.Interface{{Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}}
}
func (m *still) Probe(context.Context, netip.Addr, []string, func(net.HardwareAddr) bool) (*layer2.Conflict, error) {
	return nil, nil
}

func (m *still) lose(name string) {
	m.members = slices.DeleteFunc(m.members, func(m membership.Member) bool { return m.Name == name })
}

// crowd returns node-a's speaker in a cluster of three whose n addresses are spread evenly.
func crowd(n int) (*Speaker, *still) {
	world := &still{}
	s := New(Config{Node: "node-a", Layer2: world, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	s.members, s.started, s.active = world, time.Now(), true
	s.nextSweep = time.Now().Add(time.Hour)
	s.probes.ctx = context.Background()
	s.SetConfig(&config.Config{
		Pools:            []*config.Pool{{Name: "pool", Ranges: ranges("10.0.0.0-10.0.255.255")}},
		L2Advertisements: []*config.L2Advertisement{{Name: "all", Pools: []string{"pool"}}},
	})
	for i := range 3 {
		name := nodeName(i)
		world.members = append(world.members, membership.Member{Name: name})
		s.SetNode(Node{Name: name})
	}
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		service := "default/" + a.String()
		s.SetEndpoints(service, Endpoints{Service: service, Serving: []string{"node-a"}})
		s.SetService(Service{Name: service, Addrs: []netip.Addr{a}})
		s.replica.merge(announce.Claim{Addr: a, Owner: nodeName(i % 3), Epoch: 2, Quorum: true})
	}
	s.view.stale = true
	s.pass(time.Now())
	return s, world
}

// The time from the news of a death to all claims and announcements, for a third of 10,000 addresses.
func BenchmarkNodeDies(b *testing.B) {
	for range b.N {
		b.StopTimer()
		s, world := crowd(10_000)
		world.lose("node-b")
		s.view.stale = true
		b.StartTimer()
		s.pass(time.Now())
		b.StopTimer()
		if len(s.held) < 4900 || world.sent == 0 {
			b.Fatalf("%d addresses held, %d messages sent", len(s.held), world.sent)
		}
	}
}

// The same, of one node of 300, while nobody may announce any of them.
func BenchmarkNodeDiesUnannounced(b *testing.B) {
	for range b.N {
		b.StopTimer()
		s, world := crowd(10_000)
		s.config.Reporter = &fakeReporter{conditions: map[string]string{}, changed: func(string, announce.Reason, string) {}}
		for i := range 300 {
			name := fmt.Sprintf("node-%03d", i)
			world.members = append(world.members, membership.Member{Name: name})
			s.SetNode(Node{Name: name})
		}
		s.SetConfig(&config.Config{Pools: s.inventory.config.Pools})
		s.view.stale = true
		now := time.Now()
		s.pass(now)
		s.pass(now.Add(grief))
		world.lose("node-007")
		s.view.stale = true
		b.StartTimer()
		s.pass(now.Add(2 * grief))
		b.StopTimer()
		if len(s.unowned) != 10_000 {
			b.Fatalf("nobody announces %d addresses", len(s.unowned))
		}
	}
}

// The time for one changed Service among 10,000.
func BenchmarkOneEndpointChanges(b *testing.B) {
	s, _ := crowd(10_000)
	for i := 0; b.Loop(); i++ {
		s.SetEndpoints("default/10.0.0.1", Endpoints{Service: "default/10.0.0.1", Serving: []string{nodeName(i % 3)}})
		s.pass(time.Now())
	}
}
