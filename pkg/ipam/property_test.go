package ipam

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// world is a cluster in which the controller does what it does: it looks at a Service, decides, writes the status. The twin is
// told the same things, and has to say the same.
type world struct {
	*Allocator
	twin         *Allocator
	pools        []*config.Pool
	reservations []*config.Reservation
	services     map[types.NamespacedName]*object
	created      int
}

// object is a Service in the API server: what it asks for, and in Current its status.
type object struct {
	Request
	age   int
	taken bool // a starting controller found its addresses with an older Service
}

func (w *world) reconcile(t *rapid.T, service types.NamespacedName) {
	o := w.services[service]
	if o == nil {
		w.Release(service)
		w.twin.Release(service)
		return
	}
	o.Current = w.assign(t, o).Addrs
	o.taken = false
	w.Settle(service, o.Current)
	w.twin.Settle(service, o.Current)
}

func (w *world) assign(t *rapid.T, o *object) Result {
	before := map[netip.Addr]bool{}
	if h := w.Allocator.services[o.Service]; h != nil {
		for _, addr := range h.all() {
			before[addr] = true
		}
	}
	res := w.Assign(o.Request)
	if twin := w.twin.Assign(o.Request); !reflect.DeepEqual(res, twin) {
		t.Fatalf("equal inputs:\n%+v\n%+v", res, twin)
	}
	for _, addr := range res.Addrs {
		for name, other := range w.services {
			if name != o.Service && slices.Contains(other.Current, addr) && !other.taken && !slices.Contains(w.holders[addr], name) {
				t.Fatalf("%s got %s, which is in the status of %s", o.Service, addr, name)
			}
		}
		if !before[addr] && !slices.Contains(o.Current, addr) {
			w.given(t, o, addr)
		}
	}
	if res.Reason == Assigned && len(res.Addrs) != len(o.Families) || res.Reason == AssignedOneFamily && len(res.Addrs) != 1 {
		t.Fatalf("%s: %s with %v", o.Service, res.Reason, res.Addrs)
	}
	return res
}

// given fails if the rules don't let the Service have an address that it got just now.
func (w *world) given(t *rapid.T, o *object, addr netip.Addr) {
	i := slices.IndexFunc(w.pools, func(p *config.Pool) bool { return p.Contains(addr) })
	if i < 0 {
		t.Fatalf("%s got %s, which no pool has", o.Service, addr)
	}
	p := w.pools[i]
	if p.Allocation != nil && !p.Allocation.Allows(o.Service.Namespace, o.NamespaceLabels, o.Labels) || p.AvoidBuggyIPs && buggy(addr) {
		t.Fatalf("%s got %s, which pool %s does not give it", o.Service, addr, p.Name)
	}
	for _, by := range w.reservations {
		if slices.ContainsFunc(by.Ranges, func(r config.Range) bool { return r.Contains(addr) }) && !by.For(o.Service.Namespace, o.Service.Name) && len(w.holders[addr]) == 1 {
			t.Fatalf("%s got %s of reservation %+v", o.Service, addr, by)
		}
	}
	theirs := map[netip.Addr]bool{} // what the namespace has of the pool, without what it is giving back
	for name, h := range w.Allocator.services {
		for _, a := range h.addrs {
			if name.Namespace == o.Service.Namespace && p.Contains(a) && FamilyOf(a) == FamilyOf(addr) {
				theirs[a] = true
			}
		}
	}
	alone := true
	for _, user := range w.holders[addr] {
		if slices.Contains(w.Allocator.services[user].leaving, addr) {
			t.Fatalf("%s got %s, which %s has not given back yet", o.Service, addr, user)
		}
		if user.Namespace != o.Service.Namespace && !p.ShareAcrossNamespaces {
			t.Fatalf("%s got %s, which %s has", o.Service, addr, user)
		}
		alone = alone && (user == o.Service || user.Namespace != o.Service.Namespace)
	}
	if limit, limited := p.Quota(o.Service.Namespace, o.NamespaceLabels); limited && alone && len(theirs) > limit {
		t.Fatalf("%s got %s, and its namespace has %d of %d", o.Service, addr, len(theirs), limit)
	}
}

// restart forgets everything but the pools and the statuses.
func (w *world) restart(t *rapid.T) {
	released := w.Released()
	order := slices.SortedFunc(maps.Values(w.services), func(a, b *object) int { return cmp.Compare(a.age, b.age) })
	fresh := func() *Allocator {
		a := New()
		a.SetPools(w.pools, w.reservations)
		for pool, addrs := range released {
			a.Remember(pool, addrs)
		}
		for _, o := range order {
			taken := a.Adopt(o.Service, o.Sharing, o.Current)
			o.taken = o.taken || len(taken) > 0
		}
		return a
	}
	w.Allocator, w.twin = fresh(), fresh()
}

// settle looks at all Services until nothing changes any more.
func (w *world) settle(t *rapid.T) {
	for range 20 {
		before := state(w.Allocator)
		for _, name := range everybody {
			w.reconcile(t, name)
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
		lines = append(lines, fmt.Sprintln(service, h.addrs, h.leaving, h.sharing))
	}
	slices.Sort(lines)
	for _, p := range a.pools {
		four, _ := p.next(key("new"), ipv4)
		six, _ := p.next(key("new"), ipv6)
		lines = append(lines, fmt.Sprintln(p.Name, p.stats(ipv4), p.stats(ipv6), four, six, p.released, len(p.shared.of)))
	}
	return strings.Join(lines, "")
}

var everybody = func() (all []types.NamespacedName) {
	for _, namespace := range []string{"default", "team"} {
		for _, name := range "abcde" {
			all = append(all, types.NamespacedName{Namespace: namespace, Name: string(name)})
		}
	}
	return all
}()

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
		p.Strategy = rapid.SampledFrom([]v1beta1.AllocationStrategy{
			v1beta1.StrategyLowest, v1beta1.StrategyRandom, v1beta1.StrategyLeastRecentlyUsed,
		}).Draw(t, "strategy")
		p.ShareAcrossNamespaces = rapid.Bool().Draw(t, "share")
		switch rapid.IntRange(0, 5).Draw(t, "allocation") {
		case 0:
			p.Allocation = &config.ServiceAllocation{Priority: rapid.IntRange(0, 2).Draw(t, "priority")}
		case 1:
			p.Allocation = &config.ServiceAllocation{Namespaces: []string{"team"}}
		}
		if rapid.IntRange(0, 2).Draw(t, "limited") == 0 {
			p.Quotas = []config.Quota{{Namespaces: []string{"team"}, Addresses: rapid.IntRange(0, 3).Draw(t, "quota")}}
		}
		pools = append(pools, p)
	}
	return pools
}

func genReservations(t *rapid.T) []*config.Reservation {
	var reservations []*config.Reservation
	for i := range rapid.IntRange(0, 3).Draw(t, "reservations") {
		by := &config.Reservation{Name: fmt.Sprint("reservation", i)}
		by.Namespace = rapid.SampledFrom([]string{"", "default", "team"}).Draw(t, "namespace")
		if by.Namespace != "" {
			by.Service = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "service")
		}
		for _, prefix := range []string{"10.0.%d.%d-10.0.%[1]d.%d", "2001:db8::%x:%x-2001:db8::%[1]x:%x"} {
			from := rapid.IntRange(0, 5).Draw(t, "from")
			r, err := config.ParseRange(fmt.Sprintf(prefix, i, from, from+rapid.IntRange(0, 2).Draw(t, "size")))
			if err != nil {
				t.Fatal(err)
			}
			by.Ranges = append(by.Ranges, r)
		}
		reservations = append(reservations, by)
	}
	return reservations
}

func genRequest(t *rapid.T, service types.NamespacedName) Request {
	r := Request{Service: service}
	r.Families = rapid.SampledFrom([][]Family{{ipv4}, {ipv6}, {ipv4, ipv6}, {ipv6, ipv4}}).Draw(t, "families")
	r.Policy = corev1.IPFamilyPolicySingleStack
	if len(r.Families) == 2 {
		r.Policy = rapid.SampledFrom([]corev1.IPFamilyPolicy{prefer, require}).Draw(t, "policy")
	}
	r.Addresses = []Wish{{rapid.SampledFrom([]string{"", "", "", "10.0.0.1", "10.0.1.2", "2001:db8::0:1", "10.0.0.2,2001:db8::2", "?"}).Draw(t, "wish"), "a"}}
	r.Pool = Wish{rapid.SampledFrom([]string{"", "", "", "pool0", "pool1", "pool1,pool0", "none"}).Draw(t, "pool"), "p"}
	r.Sharing.Key = rapid.SampledFrom([]string{"", "k", "k", "l"}).Draw(t, "key")
	r.Sharing.Backend = rapid.SampledFrom([]string{"", "", "", "app=x"}).Draw(t, "backend")
	for range rapid.IntRange(1, 2).Draw(t, "ports") {
		r.Sharing.Ports = append(r.Sharing.Ports, Port{rapid.SampledFrom([]corev1.Protocol{"TCP", "UDP"}).Draw(t, "protocol"), rapid.Int32Range(1, 3).Draw(t, "port")})
	}
	return r
}

// At least 100,000 operations, in clusters that live long enough to fill their pools.
func TestProperties(t *testing.T) {
	for name, value := range map[string]string{"rapid.checks": "500", "rapid.steps": "250"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	operations := 0
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Allocator: New(), twin: New(), services: map[types.NamespacedName]*object{}}
		service := func() types.NamespacedName { return rapid.SampledFrom(everybody).Draw(t, "service") }
		setPools := func() {
			w.SetPools(w.pools, w.reservations)
			w.twin.SetPools(w.pools, w.reservations)
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { operations++; check(t, w.Allocator) },
			"create or change": func(t *rapid.T) {
				s := service()
				o := w.services[s]
				if o == nil {
					w.created++
					o = &object{age: w.created}
					w.services[s] = o
				}
				current := o.Current
				o.Request = genRequest(t, s)
				o.Current = current
			},
			"delete": func(t *rapid.T) {
				s := service()
				delete(w.services, s)
				w.reconcile(t, s)
			},
			"reconcile":       func(t *rapid.T) { w.reconcile(t, service()) },
			"reconcile again": func(t *rapid.T) { w.reconcile(t, service()) },
			"status not written": func(t *rapid.T) {
				if o := w.services[service()]; o != nil {
					w.assign(t, o)
				}
			},
			"pools":        func(t *rapid.T) { w.pools = genPools(t); setPools() },
			"reservations": func(t *rapid.T) { w.reservations = genReservations(t); setPools() },
			"killed":       func(t *rapid.T) { w.restart(t) },
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
	if operations < 100_000 {
		t.Errorf("%d operations only", operations)
	}
}
