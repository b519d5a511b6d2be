package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// manyServices returns a model of n ClusterIP Services with 2 endpoints each.
func manyServices(n int) *dataplane.Model {
	m := &dataplane.Model{Host: dataplane.Host{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}, Ports: map[string][]*dataplane.Port{}}
	for i := range n {
		p := clusterIPService(i, 2)
		m.Ports[p.Name.Service] = []*dataplane.Port{p}
	}
	return m
}

func clusterIPService(i, endpoints int) *dataplane.Port {
	addr := func(base uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, base)))
	}
	p := &dataplane.Port{
		Name:   dataplane.PortName{Service: fmt.Sprintf("default/service-%05d", i), Port: "http", Protocol: dataplane.TCP},
		Family: dataplane.IPv4, Frontends: []dataplane.Frontend{{Kind: dataplane.ClusterIP, Addr: addr(10<<24 | 96<<16 + uint32(i)), Port: 80}},
	}
	for e := range endpoints {
		p.Cluster = append(p.Cluster, dataplane.Endpoint{Addr: netip.AddrPortFrom(addr(10<<24|128<<16+uint32(i*4+e)), 8080), Local: e == 0})
	}
	p.Local = p.Cluster[:min(1, endpoints)]
	return p
}

// BenchmarkFull10k makes the table of 10,000 Services with 2 endpoints each.
func BenchmarkFull10k(b *testing.B) {
	privateNet(b)
	m := manyServices(10_000)
	for b.Loop() {
		backend := newBackend(b, dataplane.Full)
		if err := backend.Sync(b.Context(), m, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := backend.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkRestart10k compares a table of 10,000 Services with a model that it agrees with.
func BenchmarkRestart10k(b *testing.B) {
	privateNet(b)
	m := manyServices(10_000)
	backend := newBackend(b, dataplane.Full)
	if err := backend.Sync(b.Context(), m, nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := backend.Sync(b.Context(), m, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOneService adds a Service to 10,000, or takes it away.
func BenchmarkOneService(b *testing.B) {
	change10k(b, clusterIPService(10_000, 2), nil)
}

// BenchmarkOneEndpoint gives one Service of 10,000 a third endpoint, or takes it away.
func BenchmarkOneEndpoint(b *testing.B) {
	change10k(b, clusterIPService(5_000, 3), clusterIPService(5_000, 2))
}

func change10k(b *testing.B, states ...*dataplane.Port) {
	privateNet(b)
	m := manyServices(10_000)
	backend := newBackend(b, dataplane.Full)
	if err := backend.Sync(b.Context(), m, nil); err != nil {
		b.Fatal(err)
	}
	name := states[0].Name.Service
	for i := 0; b.Loop(); i++ {
		delete(m.Ports, name)
		if p := states[i%2]; p != nil {
			m.Ports[name] = []*dataplane.Port{p}
		}
		if err := backend.Sync(b.Context(), m, []string{name}); err != nil {
			b.Fatal(err)
		}
	}
}
