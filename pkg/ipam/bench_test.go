package ipam

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// An address somewhere in the middle of a full pool (or of many in use) is given back and found again.
func BenchmarkAssign(b *testing.B) {
	strategy := func(s v1beta1.AllocationStrategy) func(*config.Pool) {
		return func(p *config.Pool) { p.Strategy = s }
	}
	keyed := func(key func(int) string) func(*Request, int) {
		return func(r *Request, i int) {
			r.Sharing = Sharing{Key: key(i), Ports: []Port{{corev1.ProtocolTCP, 80 + int32(i%4)}}}
		}
	}
	plain := func(*Request, int) {}
	quota := func(p *config.Pool) { p.Quotas = []config.Quota{{Addresses: 1 << 16}} }
	for _, bench := range []struct {
		name, cidr string
		services   int
		family     Family
		pool       func(*config.Pool)
		ask        func(*Request, int)
	}{
		{"full-24", "10.0.0.0/24", 1 << 8, ipv4, strategy(v1beta1.StrategyLowest), plain},
		{"full-16", "10.0.0.0/16", 1 << 16, ipv4, strategy(v1beta1.StrategyLowest), plain},
		{"full-16-random", "10.0.0.0/16", 1 << 16, ipv4, strategy(v1beta1.StrategyRandom), plain},
		{"full-16-lru", "10.0.0.0/16", 1 << 16, ipv4, strategy(v1beta1.StrategyLeastRecentlyUsed), plain},
		{"full-16-quota", "10.0.0.0/16", 1 << 16, ipv4, quota, plain},
		{"full-16-a-key-for-four", "10.0.0.0/16", 1 << 18, ipv4, quota, keyed(func(i int) string { return fmt.Sprint(i / 4) })},
		{"full-16-one-key", "10.0.0.0/16", 1 << 18, ipv4, quota, keyed(func(int) string { return "k" })},
		{"v6-64-100k", "2001:db8::/64", 100_000, ipv6, strategy(v1beta1.StrategyLowest), plain},
		{"v6-64-100k-random", "2001:db8::/64", 100_000, ipv6, strategy(v1beta1.StrategyRandom), plain},
		{"v6-64-100k-lru", "2001:db8::/64", 100_000, ipv6, strategy(v1beta1.StrategyLeastRecentlyUsed), plain},
	} {
		b.Run(bench.name, func(b *testing.B) {
			a := allocator(with(newTestPool("p", bench.cidr), bench.pool))
			requests := make([]Request, bench.services)
			for i := range requests {
				requests[i] = Request{Service: key(fmt.Sprint("s", i)), Families: []Family{bench.family}}
				bench.ask(&requests[i], i)
				if got := a.Assign(requests[i]); got.Reason != Assigned {
					b.Fatal(got.Message)
				}
			}
			i := 0
			for b.Loop() {
				r := requests[(i*7919)%len(requests)]
				i++
				a.Release(r.Service)
				if got := a.Assign(r); got.Reason != Assigned {
					b.Fatal(got.Message)
				}
			}
		})
	}
	b.Run("refused-by-full-16", func(b *testing.B) {
		a := allocator(newTestPool("p", "10.0.0.0/16"))
		for i := range 1 << 16 {
			a.Assign(ask(fmt.Sprint("s", i)))
		}
		for b.Loop() {
			if got := a.Assign(ask("more")); got.Reason != PoolExhausted {
				b.Fatal(got.Reason)
			}
		}
	})
}
