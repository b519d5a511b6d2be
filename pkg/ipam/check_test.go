package ipam

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// check fails if two Services have one address, unless they share it by rule, or the books don't agree with each other.
func check(t interface {
	Helper()
	Fatalf(string, ...any)
}, a *Allocator) {
	t.Helper()
	users := map[netip.Addr][]types.NamespacedName{}
	used, tenants := map[string]int64{}, map[string]map[tenant]int{}
	for service, h := range a.services {
		for _, addr := range h.all() {
			for _, other := range users[addr] {
				theirs := a.services[other]
				_, common := h.sharing.common(theirs.sharing)
				leaving := slices.Contains(h.leaving, addr) || slices.Contains(theirs.leaving, addr)
				if !leaving && (!h.sharing.agrees(theirs.sharing) || common) {
					t.Fatalf("%s and %s have %s", service, other, addr)
				}
			}
			if !slices.Contains(a.holders[addr], service) {
				t.Fatalf("%s has %s, but its holders are %s", service, addr, a.holders[addr])
			}
			users[addr] = append(users[addr], service)
			p := a.poolOf(addr)
			if p == nil {
				continue
			}
			if by := p.reservation(addr); len(users[addr]) == 1 && p.gives(addr) && (by == nil || by.Namespace != "") {
				used[p.Name+string(FamilyOf(addr))]++
			}
			if tenants[p.Name] == nil {
				tenants[p.Name] = map[tenant]int{}
			}
			if !inNamespace(users[addr][:len(users[addr])-1], service.Namespace) {
				tenants[p.Name][tenant{service.Namespace, FamilyOf(addr)}]++
			}
		}
	}
	if len(users) != len(a.holders) {
		t.Fatalf("%d addresses are held, %d have a holder", len(users), len(a.holders))
	}
	for _, p := range a.pools {
		var previous config.Range
		p.free.ranges.Ascend(func(r config.Range) bool {
			if previous.To.IsValid() && !previous.To.Next().Less(r.From) && previous.To.BitLen() == r.From.BitLen() {
				t.Fatalf("pool %s: free %s and %s touch", p.Name, previous, r)
			}
			for addr := r.From; size(r) < 1000 && r.Contains(addr); addr = addr.Next() {
				if holder, held := a.holders[addr]; held || !p.Contains(addr) || p.reservation(addr) != nil || slices.Contains(p.released, addr) {
					t.Fatalf("pool %s: %s is free, but of %q", p.Name, addr, holder)
				}
			}
			previous = r
			return true
		})
		if len(p.namespaces)+len(tenants[p.Name]) > 0 && !maps.Equal(p.namespaces, tenants[p.Name]) {
			t.Fatalf("pool %s: %v of namespaces, counted %v", p.Name, tenants[p.Name], p.namespaces)
		}
		for _, f := range []Family{ipv4, ipv6} {
			if p.used[f] != used[p.Name+string(f)] {
				t.Fatalf("pool %s: %d of %s in use, counted %d", p.Name, used[p.Name+string(f)], f, p.used[f])
			}
			if s := p.stats(f); s.Total < math.MaxInt64 && (s.InUse+s.Available+s.Reserved != s.Total || s.Reserved < 0) {
				t.Fatalf("%+v", s)
			}
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("192.0.2.1, 2001:db8::1", "prod")
	f.Add("192.0.2.1,192.0.2.2", "Prod Pool")
	f.Add(",", "\x00")
	f.Fuzz(func(t *testing.T, list, name string) {
		a := allocator(newTestPool("prod", "192.0.2.0/24", "2001:db8::/64"))
		r := ask("a", dual, address(list), fromPool(name))
		got := a.Assign(r)
		if again := a.Assign(r); again.Reason != got.Reason || text(again.Addrs) != text(got.Addrs) {
			t.Errorf("%+v, then %+v", got, again)
		}
		if len(got.Message) > 1000 || got.Message == "" {
			t.Errorf("message of %d bytes", len(got.Message))
		}
		check(t, a)
	})
}
