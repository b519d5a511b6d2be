package controller

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

func TestPoolStatus(t *testing.T) {
	four := func(inUse, available, reserved int64) ipam.Stats {
		return ipam.Stats{Pool: "prod", Family: corev1.IPv4Protocol, Total: inUse + available + reserved, InUse: inUse, Available: available, Reserved: reserved}
	}
	six := ipam.Stats{Pool: "prod", Family: corev1.IPv6Protocol, Total: math.MaxInt64, InUse: 7, Available: math.MaxInt64}
	stranger := func(name, pool string) conflict {
		return conflict{types.NamespacedName{Namespace: "shop", Name: name}, pool, "192.0.2.1 is not announced: the host with the MAC address 02:00:00:00:00:01 answers for it."}
	}
	const mend = ": widen spec.addresses, add another pool, or delete Services that no longer need their addresses, before the next one has to wait"
	for name, test := range map[string]struct {
		state     poolState
		exhausted string // "reason message" of the condition that is True
		conflict  string
	}{
		"room": {poolState{stats: []ipam.Stats{four(1, 1, 0), six}}, "", ""},
		"full": {poolState{stats: []ipam.Stats{four(2, 0, 0), six}}, "PoolExhausted no IPv4 address is free, 2 of 2 are in use" + mend, ""},
		"the rest is reserved": {poolState{stats: []ipam.Stats{four(1, 0, 2)}},
			"PoolExhausted no IPv4 address is free, 1 of 3 are in use and 2 are reserved" + mend, ""},
		"one family only": {poolState{stats: []ipam.Stats{four(0, 0, 0), six}}, "", ""},
		"another pool":    {poolState{stats: []ipam.Stats{{Pool: "other", Family: corev1.IPv4Protocol, Total: 1, InUse: 1}}, conflicts: []conflict{stranger("a", "other")}}, "", ""},
		"a stranger": {poolState{conflicts: []conflict{stranger("a", "prod")}}, "",
			"AddressConflict Service shop/a: 192.0.2.1 is not announced: the host with the MAC address 02:00:00:00:00:01 answers for it."},
		"many strangers": {poolState{conflicts: []conflict{stranger("a", "prod"), stranger("b", "prod"), stranger("c", "prod"), stranger("d", "prod"),
			stranger("e", "prod"), stranger("f", "prod"), stranger("g", "prod")}}, "",
			"AddressConflict " + strings.TrimSuffix(strings.Repeat("Service shop/?: 192.0.2.1 is not announced: the host with the MAC address 02:00:00:00:00:01 answers for it. ", 5), " ") +
				" 2 more Services have addresses of other machines."},
	} {
		t.Run(name, func(t *testing.T) {
			pool := newPool("prod")
			conditions := config.Conditions(nil, config.KindIPAddressPool, "prod", 1, now)
			pool.Status = test.state.status(&pool, conditions, now)
			for typ, want := range map[config.ConditionType]string{config.ConditionExhausted: test.exhausted, config.ConditionConflict: test.conflict} {
				c := meta.FindStatusCondition(pool.Status.Conditions, string(typ))
				if c == nil || c.ObservedGeneration != 1 {
					t.Fatalf("%s: %+v", typ, c)
				}
				got := c.Reason + " " + c.Message
				if c.Status == metav1.ConditionFalse && got == "Accepted " {
					got = ""
				}
				for _, name := range "abcde" {
					if strings.Contains(want, "shop/?") {
						got = strings.Replace(got, "shop/"+string(name), "shop/?", 1)
					}
				}
				if got != want {
					t.Errorf("%s:\ngot  %s\nwant %s", typ, got, want)
				}
			}
			later := metav1.NewTime(now.Add(time.Hour))
			again := test.state.status(&pool, config.Conditions(nil, config.KindIPAddressPool, "prod", 1, later), later)
			if !equality.Semantic.DeepEqual(again, pool.Status) {
				t.Errorf("another status an hour later: %+v", again)
			}
		})
	}
}

// Of a Service's two addresses, the message of the speakers may be about one.
func TestContestedPools(t *testing.T) {
	cfg, _ := config.Parse(config.Resources{Pools: []v1beta1.IPAddressPool{newPool("a", "192.0.2.0/28"), newPool("b", "192.0.2.16/28")}})
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.17"), netip.MustParseAddr("203.0.113.1")}
	for message, want := range map[string]string{
		"192.0.2.17 is not announced: x":                               "b",
		"192.0.2.1 is not announced: x 192.0.2.17 is not announced: x": "a b",
		"203.0.113.1 is not announced":                                 "",
		"nothing":                                                      "",
	} {
		if got := strings.Join(contestedPools(addrs, message, cfg), " "); got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
		}
	}
}

// What a status remembers is used; what nobody can read is not.
func TestRemember(t *testing.T) {
	p := newPool("prod", "192.0.2.0/30")
	p.Spec.Strategy = v1beta1.StrategyLeastRecentlyUsed
	p.Status.Released = []string{"192.0.2.0", "rubbish", "192.0.2.1"}
	pools := []v1beta1.IPAddressPool{p, newPool("other", "198.51.100.0/30")}
	allocator := allocatorOf(pools...)
	remember(pools, allocator)
	if got := allocator.Released()["prod"]; len(got) != 2 || got[0].String() != "192.0.2.0" {
		t.Errorf("remembers %v", got)
	}
}
