package ipam

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// check fails if two Services have one address, a Service has one outside the pools, or the books don't agree with each other.
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
				theirs, p := a.services[other], a.poolOf(addr)
				_, common := h.sharing.common(theirs.sharing)
				leaving := slices.Contains(h.leaving, addr) || slices.Contains(theirs.leaving, addr)
				if !leaving && (!h.sharing.agrees(theirs.sharing) || common || service.Namespace != other.Namespace && !p.ShareAcrossNamespaces) {
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

// world is a cluster in which the controller does what it does: it looks at a Service, decides, writes the status. The twin is
// told the same things, and has to say the same.
type world struct {
	*Allocator
	twin     *Allocator
	pools    []*config.Pool
	services map[types.NamespacedName]*Request // Current is the status
}

func (w *world) reconcile(t *rapid.T, service types.NamespacedName) {
	r := w.services[service]
	if r == nil {
		w.Release(service)
		w.twin.Release(service)
		return
	}
	r.Current = w.assign(t, r).Addrs
	w.Settle(service)
	w.twin.Settle(service)
}

func (w *world) assign(t *rapid.T, r *Request) Result {
	res := w.Assign(*r)
	if twin := w.twin.Assign(*r); !reflect.DeepEqual(res, twin) {
		t.Fatalf("equal inputs:\n%+v\n%+v", res, twin)
	}
	for _, addr := range res.Addrs {
		if !slices.ContainsFunc(w.pools, func(p *config.Pool) bool { return p.Contains(addr) }) {
			t.Fatalf("%s got %s, which no pool has", r.Service, addr)
		}
		for other, s := range w.services {
			if other != r.Service && slices.Contains(s.Current, addr) {
				t.Fatalf("%s got %s, which is in the status of %s", r.Service, addr, other)
			}
		}
	}
	if res.Reason == Assigned && len(res.Addrs) != len(r.Families) || res.Reason == AssignedOneFamily && len(res.Addrs) != 1 {
		t.Fatalf("%s: %s with %v", r.Service, res.Reason, res.Addrs)
	}
	return res
}

// restart forgets everything but the pools and the statuses, which the two read in different orders.
func (w *world) restart(t *rapid.T) {
	w.Allocator, w.twin = allocator(w.pools...), allocator(w.pools...)
	order := slices.SortedFunc(maps.Keys(w.services), func(a, b types.NamespacedName) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range order {
		if taken := w.Adopt(s, Sharing{}, w.services[s].Current); taken != nil {
			t.Fatalf("%s: %v are taken", s, taken)
		}
	}
	slices.Reverse(order)
	for _, s := range order {
		w.twin.Adopt(s, Sharing{}, w.services[s].Current)
	}
}

// settle looks at all Services until nothing changes any more.
func (w *world) settle(t *rapid.T) {
	for range 20 {
		before := state(w.Allocator)
		for _, name := range "abcdefgh" {
			w.reconcile(t, key(string(name)))
		}
		if state(w.Allocator) == before {
			return
		}
	}
	t.Fatalf("no end of it:\n%s", state(w.Allocator))
}

// state is all that decides about the future.
func state(a *Allocator) string {
	var lines []string
	for service, h := range a.services {
		lines = append(lines, fmt.Sprintln(service, h.addrs, h.leaving))
	}
	slices.Sort(lines)
	for _, p := range a.pools {
		four, _ := p.next(key("new"), ipv4)
		six, _ := p.next(key("new"), ipv6)
		lines = append(lines, fmt.Sprintln(p.Name, p.used[ipv4], p.used[ipv6], four, six, p.released))
	}
	return strings.Join(lines, "")
}

func genPools(t *rapid.T) []*config.Pool {
	var pools []*config.Pool
	for i := range rapid.IntRange(0, 3).Draw(t, "pools") {
		p := newTestPool(fmt.Sprint("pool", i))
		for _, prefix := range []string{"10.0.%d.%d", "2001:db8::%x:%x"} {
			n := rapid.IntRange(-1, 4).Draw(t, "size")
			from := rapid.SampledFrom([]int{0, 2, 253}).Draw(t, "from")
			if n >= 0 {
				p.Ranges = append(p.Ranges, config.Range{
					From: netip.MustParseAddr(fmt.Sprintf(prefix, i, from)), To: netip.MustParseAddr(fmt.Sprintf(prefix, i, min(255, from+n))),
				})
			}
		}
		p.AutoAssign = rapid.IntRange(0, 4).Draw(t, "manual") > 0
		p.AvoidBuggyIPs = rapid.Bool().Draw(t, "avoid")
		if rapid.IntRange(0, 3).Draw(t, "reserved") == 0 {
			p.Allocation = &config.ServiceAllocation{Priority: rapid.IntRange(0, 2).Draw(t, "priority")}
		}
		pools = append(pools, p)
	}
	return pools
}

func genRequest(t *rapid.T, service types.NamespacedName) Request {
	r := Request{Service: service}
	r.Families = rapid.SampledFrom([][]Family{{ipv4}, {ipv6}, {ipv4, ipv6}, {ipv6, ipv4}}).Draw(t, "families")
	r.Policy = corev1.IPFamilyPolicySingleStack
	if len(r.Families) == 2 {
		r.Policy = rapid.SampledFrom([]corev1.IPFamilyPolicy{prefer, require}).Draw(t, "policy")
	}
	r.Addresses = []Wish{{rapid.SampledFrom([]string{"", "", "10.0.0.1", "10.0.1.2", "2001:db8::0:1", "10.0.0.2,2001:db8::2", "?"}).Draw(t, "wish"), "a"}}
	r.Pool = Wish{rapid.SampledFrom([]string{"", "", "", "pool0", "pool1", "none"}).Draw(t, "pool"), "p"}
	return r
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Allocator: New(), twin: New(), services: map[types.NamespacedName]*Request{}}
		service := func() types.NamespacedName { return key(rapid.StringMatching("[a-h]").Draw(t, "service")) }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { check(t, w.Allocator) },
			"create or change": func(t *rapid.T) {
				s := service()
				r := genRequest(t, s)
				if old := w.services[s]; old != nil {
					r.Current = old.Current
				}
				w.services[s] = &r
			},
			"delete": func(t *rapid.T) {
				s := service()
				delete(w.services, s)
				w.reconcile(t, s)
			},
			"reconcile": func(t *rapid.T) { w.reconcile(t, service()) },
			"status not written": func(t *rapid.T) {
				if r := w.services[service()]; r != nil {
					w.assign(t, r)
				}
			},
			"pools": func(t *rapid.T) {
				w.pools = genPools(t)
				w.SetPools(w.pools, nil)
				w.twin.SetPools(w.pools, nil)
			},
			"killed": func(t *rapid.T) { w.restart(t) },
			"restarted when all is done": func(t *rapid.T) {
				w.settle(t)
				before := state(w.Allocator)
				w.restart(t)
				w.settle(t)
				if after := state(w.Allocator); after != before {
					t.Fatalf("before:\n%s\nafter:\n%s", before, after)
				}
			},
		})
	})
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

func BenchmarkAssign(b *testing.B) {
	for _, bench := range []struct {
		name, cidr string
		used       int
		family     Family
	}{
		{"full /16", "10.0.0.0/16", 1 << 16, ipv4},
		{"/64 with 100000 used", "2001:db8::/64", 100_000, ipv6},
	} {
		b.Run(bench.name, func(b *testing.B) {
			a := allocator(newTestPool("p", bench.cidr))
			services := make([]types.NamespacedName, bench.used)
			for i := range services {
				services[i] = key(fmt.Sprint("s", i))
				a.Assign(Request{Service: services[i], Families: []Family{bench.family}})
			}
			i := 0
			for b.Loop() {
				// An address somewhere in the middle is freed and found again.
				s := services[(i*7919)%len(services)]
				i++
				a.Release(s)
				if got := a.Assign(Request{Service: s, Families: []Family{bench.family}}); got.Reason != Assigned {
					b.Fatal(got.Message)
				}
			}
		})
	}
	b.Run("refused by a full /16", func(b *testing.B) {
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
