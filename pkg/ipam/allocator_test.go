package ipam

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

const (
	prefer  = corev1.IPFamilyPolicyPreferDualStack
	require = corev1.IPFamilyPolicyRequireDualStack
)

// newTestPool makes a pool of "a-b" or CIDR ranges in ascending order.
func newTestPool(name string, ranges ...string) *config.Pool {
	p := &config.Pool{Name: name, AutoAssign: true}
	for _, text := range ranges {
		r, err := config.ParseRange(text)
		if err != nil {
			panic(err)
		}
		p.Ranges = append(p.Ranges, r)
	}
	return p
}

func with(p *config.Pool, change func(*config.Pool)) *config.Pool { change(p); return p }

func manual(p *config.Pool) { p.AutoAssign = false }
func avoid(p *config.Pool)  { p.AvoidBuggyIPs = true }
func priority(n int) func(*config.Pool) {
	return func(p *config.Pool) { p.Allocation = &config.ServiceAllocation{Priority: n} }
}
func onlyFor(namespaces ...string) func(*config.Pool) {
	return func(p *config.Pool) { p.Allocation = &config.ServiceAllocation{Namespaces: namespaces} }
}

func allocator(pools ...*config.Pool) *Allocator {
	a := New()
	a.SetPools(pools, nil)
	return a
}

func key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: name}
}

// ask makes a request of an IPv4 Service; the options change it.
func ask(name string, options ...func(*Request)) Request {
	r := Request{Service: key(name), Families: []Family{ipv4}, Policy: corev1.IPFamilyPolicySingleStack}
	for _, option := range options {
		option(&r)
	}
	return r
}

func families(policy corev1.IPFamilyPolicy, f ...Family) func(*Request) {
	return func(r *Request) { r.Policy, r.Families = policy, f }
}

var dual = families(require, ipv4, ipv6)

func address(list string) func(*Request) {
	return func(r *Request) { r.Addresses = []Wish{{list, "annotation steelyard.io/loadBalancerIPs"}} }
}

func fromPool(name string) func(*Request) {
	return func(r *Request) { r.Pool = Wish{name, "annotation steelyard.io/address-pool"} }
}

func in(namespace string) func(*Request) {
	return func(r *Request) { r.Service.Namespace = namespace }
}

func current(list string) func(*Request) {
	return func(r *Request) { r.Current = addrs(list) }
}

func addrs(list string) []netip.Addr {
	var out []netip.Addr
	for text := range strings.SplitSeq(list, ",") {
		if text != "" {
			out = append(out, netip.MustParseAddr(text))
		}
	}
	return out
}

func text(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

// step is one call of Assign (with what it shall give) or of Release.
type step struct {
	ask     Request
	want    string // addresses
	reason  Reason // Assigned when empty
	says    string // part of the message
	release string // a Service's name, instead of ask
	pools   []*config.Pool
}

func TestAssign(t *testing.T) {
	two := newTestPool("two", "192.0.2.4/31")
	four := newTestPool("four", "192.0.2.0-192.0.2.3")
	six := newTestPool("six", "2001:db8::/127")
	both := newTestPool("both", "198.51.100.0/30", "2001:db8:1::/126")

	for name, test := range map[string]struct {
		pools []*config.Pool
		steps []step
	}{
		"lowest first, and the freed one again": {[]*config.Pool{four}, []step{
			{ask: ask("a"), want: "192.0.2.0", says: "192.0.2.0 from pool four"},
			{ask: ask("b"), want: "192.0.2.1"},
			{ask: ask("c"), want: "192.0.2.2"},
			{release: "b"},
			{ask: ask("d"), want: "192.0.2.1"},
			{ask: ask("a"), want: "192.0.2.0"},
		}},
		"exhausted, then one is freed": {[]*config.Pool{two}, []step{
			{ask: ask("a"), want: "192.0.2.4"},
			{ask: ask("b"), want: "192.0.2.5"},
			{ask: ask("c"), reason: PoolExhausted, says: "pool two is full, 2 of 2 IPv4 addresses are in use"},
			{release: "a"},
			{ask: ask("c"), want: "192.0.2.4"},
		}},
		"the next pool when the first is full": {[]*config.Pool{two, newTestPool("zwei", "203.0.113.1/32")}, []step{
			{ask: ask("a"), want: "192.0.2.4"},
			{ask: ask("b"), want: "192.0.2.5"},
			{ask: ask("c"), want: "203.0.113.1"},
			{ask: ask("d"), reason: PoolExhausted, says: "pool zwei is full, 1 of 1"},
		}},
		"requested address": {[]*config.Pool{two}, []step{
			{ask: ask("a", address("192.0.2.4")), want: "192.0.2.4"},
			{ask: ask("b", address("192.0.2.4")), reason: AddressTaken, says: "which Service default/a has"},
			{ask: ask("b", address(" 192.0.2.5 ")), want: "192.0.2.5"},
			{release: "a"},
			{ask: ask("b", address("192.0.2.4")), want: "192.0.2.4"},
		}},
		"an address that can't be had leaves the Service its own": {[]*config.Pool{two}, []step{
			{ask: ask("a"), want: "192.0.2.4"},
			{ask: ask("a", address("10.0.0.1")), want: "192.0.2.4", reason: OutsidePools, says: "until then the Service keeps 192.0.2.4"},
			{ask: ask("a", address("rubbish")), want: "192.0.2.4", reason: InvalidRequest},
			{ask: ask("a", fromPool("nowhere")), want: "192.0.2.4", reason: UnknownPool},
			{ask: ask("a"), want: "192.0.2.4"},
		}},
		"bad requests": {[]*config.Pool{two, with(newTestPool("prod", "10.0.0.0/24"), avoid)}, []step{
			{ask: ask("a", address("192.0.2.4,192.0.2.5")), reason: InvalidRequest, says: "two IPv4 addresses, 192.0.2.4 and 192.0.2.5"},
			{ask: ask("a", address("192.0.2.4,")), reason: InvalidRequest, says: `"" is not an IP address`},
			{ask: ask("a", address("fe80::1%eth0")), reason: InvalidRequest},
			{ask: ask("a", address("2001:db8::1")), reason: WrongFamily, says: "IPv4 only"},
			{ask: ask("a", address("172.16.0.1")), reason: OutsidePools, says: "two, prod"},
			{ask: ask("a", address("192.0.2.4"), fromPool("prod")), reason: OutsidePools, says: "in pool two and not in prod"},
			{ask: ask("a", address("10.0.0.255")), reason: AvoidedAddress},
			{ask: ask("a", fromPool("Prod ")), reason: InvalidRequest, says: "write prod"},
			{ask: ask("a", fromPool("prod, two, none")), reason: UnknownPool, says: "there is no IPAddressPool none"},
			{ask: ask("a", fromPool(strings.Repeat("x ", 10_000))), reason: InvalidRequest, says: "..."},
			{ask: ask("a", fromPool("staging")), reason: UnknownPool, says: "name one of two, prod"},
			{ask: ask("a", families(require, ipv4)), reason: NoSecondFamily},
			{ask: ask("a", func(r *Request) {
				r.Addresses = []Wish{{"192.0.2.4", "annotation x"}, {"192.0.2.5", "spec.loadBalancerIP"}}
			}), reason: InvalidRequest, says: "annotation x asks for 192.0.2.4 and spec.loadBalancerIP for 192.0.2.5"},
			{ask: ask("b"), want: "192.0.2.4"},
		}},
		"empty annotations ask for nothing": {[]*config.Pool{two}, []step{
			{ask: ask("a", address(""), fromPool(" ")), want: "192.0.2.4"},
		}},
		"IPv4 in IPv6 clothing": {[]*config.Pool{two}, []step{
			{ask: ask("a", address("::ffff:192.0.2.5")), want: "192.0.2.5"},
		}},
		"no pools": {nil, []step{
			{ask: ask("a"), reason: NoPools},
			{ask: ask("a", address("192.0.2.4")), reason: NoPools},
			{ask: ask("a", fromPool("x")), reason: NoPools},
		}},
		"the named pool, and another when the name changes": {[]*config.Pool{two, four}, []step{
			{ask: ask("a", fromPool("four")), want: "192.0.2.0"},
			{ask: ask("a", fromPool("two")), want: "192.0.2.4"},
			{ask: ask("a"), want: "192.0.2.4"},
		}},
		"autoAssign false": {[]*config.Pool{with(newTestPool("m", "10.0.0.0/31"), manual)}, []step{
			{ask: ask("a"), reason: NoPoolForService, says: "steelyard.io/address-pool"},
			{ask: ask("a", fromPool("m")), want: "10.0.0.0"},
			{ask: ask("b", address("10.0.0.1")), want: "10.0.0.1"},
		}},
		"avoidBuggyIPs": {[]*config.Pool{with(newTestPool("b", "10.0.0.254-10.0.1.1"), avoid)}, []step{
			{ask: ask("a"), want: "10.0.0.254"},
			{ask: ask("b"), want: "10.0.1.1"},
			{ask: ask("c"), reason: PoolExhausted, says: "2 of 2"},
		}},
		"IPv6": {[]*config.Pool{four, six}, []step{
			{ask: ask("a", families("SingleStack", ipv6)), want: "2001:db8::"},
			{ask: ask("b", families("SingleStack", ipv6)), want: "2001:db8::1"},
			{ask: ask("c", families("SingleStack", ipv6)), reason: PoolExhausted, says: "pool six is full, 2 of 2 IPv6"},
		}},
		"no pool of the family": {[]*config.Pool{four}, []step{
			{ask: ask("a", families("SingleStack", ipv6)), reason: FamilyUnavailable, says: "pool four has no IPv6 addresses"},
		}},
		"dual stack from one pool": {[]*config.Pool{four, six, both}, []step{
			{ask: ask("a", dual), want: "198.51.100.0,2001:db8:1::"},
			{ask: ask("b", families(require, ipv6, ipv4)), want: "198.51.100.1,2001:db8:1::1"},
			{ask: ask("c", families(prefer, ipv4, ipv6)), want: "198.51.100.2,2001:db8:1::2"},
			{ask: ask("d", families(prefer, ipv4)), want: "192.0.2.0"},
			{ask: ask("e", dual), want: "198.51.100.3,2001:db8:1::3"},
			{ask: ask("f", dual), want: "192.0.2.1,2001:db8::"},
			{ask: ask("g", dual, fromPool("both")), reason: PoolExhausted, says: "pool both is full, 4 of 4 IPv4"},
		}},
		"dual stack from two pools if none has both": {[]*config.Pool{four, six}, []step{
			{ask: ask("a", dual), want: "192.0.2.0,2001:db8::", says: "192.0.2.0 from pool four and 2001:db8:: from pool six"},
			{ask: ask("b", families(prefer, ipv6, ipv4)), want: "192.0.2.1,2001:db8::1"},
			{ask: ask("c", dual), reason: PoolExhausted, says: "pool six is full, 2 of 2 IPv6"},
			{ask: ask("c", families(prefer, ipv6, ipv4)), want: "192.0.2.2", reason: AssignedOneFamily, says: "no IPv6 address, because pool six is full"},
		}},
		"RequireDualStack and no pool of one family": {[]*config.Pool{four}, []step{
			{ask: ask("a", dual), reason: FamilyUnavailable, says: "pool four has no IPv6 addresses"},
		}},
		"the two named pools": {[]*config.Pool{both, four, two, six}, []step{
			{ask: ask("a", dual, fromPool("six,four")), want: "192.0.2.0,2001:db8::"},
			{ask: ask("b", dual, fromPool("two , six")), want: "192.0.2.4,2001:db8::1"},
			{ask: ask("b", fromPool("two, six")), want: "192.0.2.4"},
			{ask: ask("c", fromPool("two,,six")), reason: InvalidRequest, says: `"" can't be the name of a pool`},
			{ask: ask("c", fromPool("two,six,four")), reason: InvalidRequest, says: "asks for 3 pools, two, six, four"},
			{ask: ask("c", fromPool("two,two")), want: "192.0.2.5"},
			{ask: ask("d", dual, fromPool("four,six"), address("198.51.100.0")), reason: OutsidePools, says: "not in four, six"},
			{ask: ask("d", dual, fromPool("both,four")), want: "198.51.100.0,2001:db8:1::"},
		}},
		"PreferDualStack falls back to the other family": {[]*config.Pool{six}, []step{
			{ask: ask("a", families(prefer, ipv4, ipv6)), want: "2001:db8::", reason: AssignedOneFamily},
			{ask: ask("b", families(prefer, ipv4, ipv6)), want: "2001:db8::1", reason: AssignedOneFamily},
			{ask: ask("c", families(prefer, ipv4, ipv6)), reason: PoolExhausted, says: "pool six is full, 2 of 2 IPv6"},
		}},
		"PreferDualStack gains the second family, from the same pool first": {[]*config.Pool{four}, []step{
			{ask: ask("a", families(prefer, ipv4, ipv6)), want: "192.0.2.0", reason: AssignedOneFamily},
			{ask: ask("b", families(prefer, ipv4, ipv6)), want: "192.0.2.1", reason: AssignedOneFamily},
			{pools: []*config.Pool{four, both}},
			{ask: ask("a", families(prefer, ipv4, ipv6)), want: "192.0.2.0,2001:db8:1::"},
			{pools: []*config.Pool{newTestPool("four", "192.0.2.0-192.0.2.3", "2001:db8::/64"), both}},
			{ask: ask("b", families(prefer, ipv4, ipv6)), want: "192.0.2.1,2001:db8::"},
		}},
		"a Service that changes to RequireDualStack keeps what it has": {[]*config.Pool{four, both}, []step{
			{ask: ask("a"), want: "192.0.2.0"},
			{ask: ask("b", fromPool("both")), want: "198.51.100.0"},
			{ask: ask("a", dual), want: "192.0.2.0,2001:db8:1::"},
			{ask: ask("b", dual), want: "198.51.100.0,2001:db8:1::1"},
		}},
		"a Service that loses its second family": {[]*config.Pool{both}, []step{
			{ask: ask("a", dual), want: "198.51.100.0,2001:db8:1::"},
			{ask: ask("a", families("SingleStack", ipv6)), want: "2001:db8:1::"},
			{ask: ask("b", address("198.51.100.0")), want: "198.51.100.0"},
		}},
		"two requested addresses": {[]*config.Pool{both, six}, []step{
			{ask: ask("a", dual, address("2001:db8:1::3,198.51.100.1")), want: "198.51.100.1,2001:db8:1::3"},
			{ask: ask("b", dual, address("198.51.100.2,2001:db8::")), want: "198.51.100.2,2001:db8::"},
			{ask: ask("b", dual, address("198.51.100.2")), want: "198.51.100.2,2001:db8::"},
			{ask: ask("d", dual, address("198.51.100.0")), want: "198.51.100.0,2001:db8:1::"},
			{ask: ask("c", dual, address("198.51.100.3"), fromPool("six")), reason: OutsidePools},
		}},
		"one requested address and the other family is not in its pool": {[]*config.Pool{four, both}, []step{
			{ask: ask("a", dual, address("192.0.2.1")), want: "192.0.2.1,2001:db8:1::"},
			{ask: ask("b", families(prefer, ipv4, ipv6), address("192.0.2.2"), fromPool("four")), want: "192.0.2.2", reason: AssignedOneFamily},
		}},
		"reserved pools": {[]*config.Pool{
			with(newTestPool("a", "10.0.0.0/32"), onlyFor("team")), with(newTestPool("b", "10.0.1.0/32"), priority(10)),
			with(newTestPool("c", "10.0.2.0/32"), priority(9)), newTestPool("d", "10.0.3.0/32"),
		}, []step{
			{ask: ask("1"), want: "10.0.2.0"},
			{ask: ask("2"), want: "10.0.1.0"},
			{ask: ask("3", fromPool("a")), reason: PoolNotAllowed},
			{ask: ask("3", address("10.0.0.0")), reason: PoolNotAllowed},
			{ask: ask("3", in("team")), want: "10.0.0.0"},
			{ask: ask("4"), want: "10.0.3.0"},
			{ask: ask("5"), reason: PoolExhausted},
		}},
		"pools come and go": {[]*config.Pool{two}, []step{
			{ask: ask("a"), want: "192.0.2.4"},
			{ask: ask("b"), want: "192.0.2.5"},
			{pools: []*config.Pool{newTestPool("renamed", "192.0.2.0/24")}},
			{ask: ask("a"), want: "192.0.2.4", says: "from pool renamed"},
			{pools: []*config.Pool{newTestPool("left", "192.0.2.4/32"), newTestPool("right", "192.0.2.5/32")}},
			{ask: ask("a"), want: "192.0.2.4", says: "from pool left"},
			{ask: ask("b"), want: "192.0.2.5", says: "from pool right"},
			{pools: []*config.Pool{newTestPool("right", "192.0.2.5-192.0.2.6")}},
			{ask: ask("a"), want: "192.0.2.6"},
			{ask: ask("b"), want: "192.0.2.5"},
			{pools: nil},
			{ask: ask("a"), reason: NoPools},
		}},
		"a pool starts to avoid an address in use": {[]*config.Pool{newTestPool("p", "10.0.0.0/30", "2001:db8::/64")}, []step{
			{ask: ask("a", dual), want: "10.0.0.0,2001:db8::"},
			{pools: []*config.Pool{with(newTestPool("p", "10.0.0.0/30", "2001:db8::/64"), avoid)}},
			{ask: ask("a", dual), want: "10.0.0.1,2001:db8::"},
		}},
		"a pool stops to allow a Service": {[]*config.Pool{two}, []step{
			{ask: ask("a"), want: "192.0.2.4"},
			{pools: []*config.Pool{with(newTestPool("two", "192.0.2.4/31"), onlyFor("team"))}},
			{ask: ask("a"), reason: NoPoolForService},
		}},
		"status adopted": {[]*config.Pool{four}, []step{
			{ask: ask("a", current("192.0.2.3")), want: "192.0.2.3"},
			{ask: ask("b", current("192.0.2.3")), want: "192.0.2.0"},
			{ask: ask("c", current("203.0.113.9,192.0.2.2")), want: "192.0.2.2"},
			{ask: ask("d", current("2001:db8::5")), want: "192.0.2.1"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := allocator(test.pools...)
			for i, s := range test.steps {
				switch {
				case s.release != "":
					a.Release(key(s.release))
				case s.ask.Service.Name == "":
					a.SetPools(s.pools, nil)
				default:
					want := s.reason
					if want == "" {
						want = Assigned
					}
					for range 2 { // it is idempotent
						got := a.Assign(s.ask)
						if text(got.Addrs) != s.want || got.Reason != want || !strings.Contains(got.Message, s.says) || len(got.Message) > 500 {
							t.Errorf("step %d: got %q, %s: %s\nwant %q, %s: %s", i, text(got.Addrs), got.Reason, got.Message, s.want, want, s.says)
						}
					}
					a.Settle(s.ask.Service, nil)
				}
				check(t, a)
			}
		})
	}
}

func TestSelectorsOfPools(t *testing.T) {
	a := allocator(with(newTestPool("p", "10.0.0.0/30"), func(p *config.Pool) {
		p.Allocation = &config.ServiceAllocation{
			NamespaceSelectors: []labels.Selector{labels.SelectorFromSet(labels.Set{"tier": "gold"})},
			ServiceSelectors:   []labels.Selector{labels.SelectorFromSet(labels.Set{"app": "web"})},
		}
	}))
	r := ask("a")
	r.NamespaceLabels = labels.Set{"tier": "gold"}
	if got := a.Assign(r); got.Reason != NoPoolForService {
		t.Errorf("without the Service's label: %s", got.Reason)
	}
	r.Labels = labels.Set{"app": "web"}
	if got := a.Assign(r); got.Reason != Assigned {
		t.Errorf("with both labels: %s: %s", got.Reason, got.Message)
	}
	r.NamespaceLabels = nil
	if got := a.Assign(r); len(got.Addrs) != 0 {
		t.Errorf("after the namespace lost its label: still %v", got.Addrs)
	}
}
