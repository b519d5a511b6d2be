package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Until the status of the Service that loses it is written, an address is nobody else's.
func TestNoAddressIsFreeBeforeItsStatusIs(t *testing.T) {
	a := allocator(newTestPool("p", "10.0.0.0/31"))
	a.Assign(ask("a"))
	if got := a.Assign(ask("a", address("10.0.0.1"), current("10.0.0.0"))); got.Lost != "10.0.0.0" {
		t.Errorf("lost: %q", got.Lost)
	}
	if got := a.Assign(ask("b")); got.Reason != PoolExhausted {
		t.Fatalf("b has %v while the status of a still says so", got.Addrs)
	}
	if !a.Settle(key("a"), nil) {
		t.Error("nothing settled")
	}
	if got := a.Assign(ask("b")); text(got.Addrs) != "10.0.0.0" {
		t.Errorf("b has %v, %s", got.Addrs, got.Message)
	}
}

// A pool that is deleted and created again must not shuffle the addresses of Services that nobody has looked at in between.
func TestPoolReplaced(t *testing.T) {
	pools := []*config.Pool{newTestPool("p", "10.0.0.0/31")}
	a := allocator(pools...)
	a.Assign(ask("a"))
	_, concerned := a.SetPools(nil, nil)
	if !slices.Equal(concerned, []types.NamespacedName{key("a")}) {
		t.Errorf("concerned: %v", concerned)
	}
	a.SetPools(pools, nil)
	if got := a.Assign(ask("b")); text(got.Addrs) != "10.0.0.1" {
		t.Errorf("b has %v", got.Addrs)
	}
	if got := a.Assign(ask("a", current("10.0.0.0"))); text(got.Addrs) != "10.0.0.0" {
		t.Errorf("a has %v", got.Addrs)
	}
}

func TestSetPoolsTellsWhatItConcerns(t *testing.T) {
	left, right := newTestPool("left", "10.0.0.0/31"), newTestPool("right", "10.0.1.0/31")
	a := allocator(left, right)
	a.Assign(ask("a"))
	a.Assign(ask("b", fromPool("right")))
	if changed, concerned := a.SetPools([]*config.Pool{newTestPool("left", "10.0.0.0/31"), right}, nil); changed || concerned != nil {
		t.Errorf("the same pools: %v, %v", changed, concerned)
	}
	changed, concerned := a.SetPools([]*config.Pool{left, newTestPool("right", "10.0.1.0/24")}, nil)
	if !changed || !slices.Equal(concerned, []types.NamespacedName{key("b")}) {
		t.Errorf("right widened: %v, %v", changed, concerned)
	}
	if changed, concerned := a.SetPools([]*config.Pool{newTestPool("right", "10.0.1.0/24")}, nil); !changed || !slices.Equal(concerned, []types.NamespacedName{key("a")}) {
		t.Errorf("left deleted: %v, %v", changed, concerned)
	}
}

func TestAdoptTellsWhatIsTaken(t *testing.T) {
	a := allocator(newTestPool("p", "10.0.0.0/31"))
	if taken := a.Adopt(key("old"), Sharing{}, addrs("10.0.0.0")); taken != nil {
		t.Errorf("taken: %v", taken)
	}
	if taken := a.Adopt(key("young"), Sharing{}, addrs("10.0.0.0,2001:db8::1")); text(taken) != "10.0.0.0" {
		t.Errorf("taken: %v", taken)
	}
	got := a.Assign(ask("young", current("10.0.0.0")))
	if text(got.Addrs) != "10.0.0.1" || got.Lost != "10.0.0.0, which Service default/old has" {
		t.Errorf("young has %v; lost %s", got.Addrs, got.Lost)
	}
}

func TestStats(t *testing.T) {
	for name, test := range map[string]struct {
		pool *config.Pool
		want string
	}{
		"a /24":                  {newTestPool("p", "10.0.0.0/24"), "256 255 0 0"},
		"two ranges":             {newTestPool("p", "10.0.0.0/24", "10.0.2.0/25"), "384 383 0 0"},
		"avoided":                {with(newTestPool("p", "10.0.0.0/24", "10.0.2.0/25"), avoid), "381 380 0 0"},
		"avoided between ranges": {with(newTestPool("p", "10.0.0.1-10.0.0.254"), avoid), "254 253 0 0"},
		"a /64":                  {newTestPool("p", "2001:db8::/64"), "0 0 9223372036854775807 9223372036854775807"},
		"a /66":                  {newTestPool("p", "2001:db8::/66"), "0 0 4611686018427387904 4611686018427387903"},
		"everything":             {newTestPool("p", "0.0.0.0/0", "::/0"), "4294967296 4294967295 9223372036854775807 9223372036854775807"},
		"a /31 at .0 and a /127": {with(newTestPool("p", "10.0.0.0/31", "2001:db8::/127"), avoid), "1 0 2 1"},
	} {
		t.Run(name, func(t *testing.T) {
			a := allocator(test.pool)
			a.Assign(ask("a", families(prefer, ipv4, ipv6)))
			s := a.Stats()
			if got := fmt.Sprint(s[0].Total, s[0].Available, s[1].Total, s[1].Available); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			a.Release(key("a"))
			if s := a.Stats(); s[0].InUse+s[1].InUse != 0 || s[0].Total != s[0].Available {
				t.Errorf("after release: %+v", s)
			}
		})
	}
}

// users returns the Services that have the address, by name; those that are about to give it back are not among them.
func users(a *Allocator, addr netip.Addr) []types.NamespacedName {
	var all []types.NamespacedName
	for _, user := range a.holders[addr] {
		if slices.Contains(a.services[user].addrs, addr) {
			all = append(all, user)
		}
	}
	return all
}

func TestUsers(t *testing.T) {
	a := allocator(newTestPool("p", "10.0.0.0/31"))
	share := func(port int32) func(*Request) {
		return func(r *Request) { r.Sharing = Sharing{Key: "k", Ports: []Port{{"TCP", port}}} }
	}
	for i, name := range []string{"c", "a", "b"} {
		a.Assign(ask(name, share(int32(i))))
	}
	a.Assign(ask("a", share(0), current("10.0.0.0"))) // the port of c, so it moves
	if got := fmt.Sprint(users(a, addrs("10.0.0.0")[0]), users(a, addrs("10.0.0.1")[0]), users(a, addrs("10.0.0.2")[0])); got != "[default/b default/c] [default/a] []" {
		t.Errorf("users: %s", got)
	}
}

// What was released longer ago than a pool's status can hold counts as never used, so that a restart makes no difference.
func TestReleasedIsBounded(t *testing.T) {
	lru := with(newTestPool("p", "10.0.0.0/24"), func(p *config.Pool) { p.Strategy = "LeastRecentlyUsed" })
	a := allocator(lru)
	for i := range rememberedMost + 6 {
		a.Assign(ask(fmt.Sprint("s", i)))
	}
	for i := range rememberedMost + 6 {
		a.Release(key(fmt.Sprint("s", i)))
	}
	released := a.Released()["p"]
	if len(released) != rememberedMost || text(released[:1]) != "10.0.0.6" {
		t.Errorf("%d released, the oldest %s", len(released), released[0])
	}
	restarted := allocator(lru)
	restarted.Remember("p", released)
	restarted.Remember("gone", released)
	if got, want := restarted.Assign(ask("new")), a.Assign(ask("new")); text(got.Addrs) != text(want.Addrs) || text(got.Addrs) != "10.0.0.0" {
		t.Errorf("restarted %v, before %v", got.Addrs, want.Addrs)
	}
	a.SetPools([]*config.Pool{newTestPool("p", "10.0.0.0/24")}, nil)
	if released := a.Released(); len(released) > 0 {
		t.Errorf("with another strategy: %v", released)
	}
}
