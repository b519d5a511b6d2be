package iptables

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// many is a model of n Services with two endpoints each.
func many(n int) *dataplane.Model {
	ports := make([]*dataplane.Port, n)
	for i := range ports {
		ports[i] = numbered(i, 1)
	}
	return model(ports...)
}

func numbered(i int, generation byte) *dataplane.Port {
	at := func(net byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)}), 8080)
	}
	return &dataplane.Port{
		Name: dataplane.PortName{Service: fmt.Sprintf("bench/service-%d", i), Port: "http", Protocol: dataplane.TCP}, Family: dataplane.IPv4,
		Frontends: []dataplane.Frontend{{Kind: dataplane.ClusterIP, Addr: at(96).Addr(), Port: 80}},
		Cluster:   []dataplane.Endpoint{{Addr: at(128)}, {Addr: at(128 + generation)}},
	}
}

// BenchmarkFull10k loads 10,000 Services into an empty kernel.
func BenchmarkFull10k(b *testing.B) {
	m := many(10_000)
	for b.Loop() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.StopTimer()
			isolate(b)
			backend := newBackend(b, dataplane.Full)
			b.StartTimer()
			sync(b, backend, m)
		}()
		<-done
	}
}

// BenchmarkRestart10k compares 10,000 Services with a kernel that has them.
func BenchmarkRestart10k(b *testing.B) {
	isolate(b)
	m := many(10_000)
	sync(b, newBackend(b, dataplane.Full), m)
	again := newBackend(b, dataplane.Full)
	for b.Loop() {
		sync(b, again, m)
	}
}

// BenchmarkOneEndpoint replaces one of 20,000 endpoints.
func BenchmarkOneEndpoint(b *testing.B) {
	benchmarkOne(b, func(m *dataplane.Model, i int) {
		p := numbered(7, byte(1+i%2))
		m.Ports[p.Name.Service] = []*dataplane.Port{p}
	})
}

// BenchmarkOneService adds and deletes a Service beside 10,000 others, in turns.
func BenchmarkOneService(b *testing.B) {
	benchmarkOne(b, func(m *dataplane.Model, i int) {
		p := numbered(7, 1)
		if i%2 == 0 {
			delete(m.Ports, p.Name.Service)
		} else {
			m.Ports[p.Name.Service] = []*dataplane.Port{p}
		}
	})
}

func benchmarkOne(b *testing.B, change func(m *dataplane.Model, i int)) {
	isolate(b)
	m := many(10_000)
	backend := newBackend(b, dataplane.Full)
	sync(b, backend, m)
	i := 0
	for b.Loop() {
		change(m, i)
		sync(b, backend, m, numbered(7, 1).Name.Service)
		i++
	}
}

// BenchmarkIntact10k looks after 10,000 Services.
func BenchmarkIntact10k(b *testing.B) {
	isolate(b)
	backend := newBackend(b, dataplane.Full)
	sync(b, backend, many(10_000))
	for b.Loop() {
		if err := backend.Intact(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
