package config

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// address draws from so few addresses that pools overlap in every way.
func address(t *rapid.T, label string) netip.Addr {
	last := rapid.ByteRange(0, 31).Draw(t, label)
	if rapid.Bool().Draw(t, label+" is IPv6") {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 15: last})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, last})
}

func drawResources(t *rapid.T) Resources {
	var r Resources
	for i := range rapid.IntRange(0, 5).Draw(t, "pools") {
		pool := v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{
			Name:              fmt.Sprintf("pool-%d", i),
			Labels:            map[string]string{"parity": fmt.Sprint(i % 2)},
			CreationTimestamp: metav1.NewTime(time.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created")), 0)),
		}}
		for range rapid.IntRange(0, 4).Draw(t, "entries") {
			entry := address(t, "first").String() + "-" + address(t, "last").String() // often mixed or reversed
			pool.Spec.Addresses = append(pool.Spec.Addresses, entry)
		}
		r.Pools = append(r.Pools, pool)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "advertisements") {
		ad := v1beta1.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ad-%d", i)}}
		for range rapid.IntRange(0, 2).Draw(t, "names") {
			ad.Spec.IPAddressPools = append(ad.Spec.IPAddressPools, fmt.Sprintf("pool-%d", rapid.IntRange(0, 6).Draw(t, "name")))
		}
		if rapid.Bool().Draw(t, "selector") {
			parity := rapid.SampledFrom([]string{"0", "1", "2"}).Draw(t, "parity")
			ad.Spec.IPAddressPoolSelectors = []metav1.LabelSelector{{MatchLabels: map[string]string{"parity": parity}}}
		}
		r.L2Advertisements = append(r.L2Advertisements, ad)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "nodes") {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i)}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address(t, "node").String()}}
		r.Nodes = append(r.Nodes, node)
	}
	return r
}

// TestParseOrder demands equal answers for equal resources in another order.
func TestParseOrder(t *testing.T) {
	selectorText := cmp.Transformer("selector", func(s labels.Selector) string { return s.String() })
	rapid.Check(t, func(t *rapid.T) {
		r := drawResources(t)
		cfg, faults := Parse(r)
		shuffled := Resources{
			Pools:            rapid.Permutation(r.Pools).Draw(t, "shuffled pools"),
			L2Advertisements: rapid.Permutation(r.L2Advertisements).Draw(t, "shuffled advertisements"),
			Nodes:            rapid.Permutation(r.Nodes).Draw(t, "shuffled nodes"),
		}
		again, faultsAgain := Parse(shuffled)
		if diff := cmp.Diff(cfg, again, selectorText, cmp.AllowUnexported(netip.Addr{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("configuration:\n%s", diff)
		}
		if diff := cmp.Diff(faults, faultsAgain); diff != "" {
			t.Errorf("faults:\n%s", diff)
		}
	})
}

// TestParseRanges demands that an address belongs to the oldest pool that names it, and to no other; and that a pool's ranges
// are in order and don't touch.
func TestParseRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawResources(t)
		cfg, faults := Parse(r)
		for _, p := range cfg.Pools {
			for i := 1; i < len(p.Ranges); i++ {
				if a, b := p.Ranges[i-1], p.Ranges[i]; !a.To.Less(b.From) || a.To.Next() == b.From {
					t.Errorf("%s has %s before %s", p.Name, a, b)
				}
			}
		}
		asked := 0 // how many pools name an address that an older one has
		for last := range byte(32) {
			for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, last}), netip.AddrFrom16([16]byte{0x20, 0x01, 15: last})} {
				oldest, named := oldestNaming(r.Pools, a)
				asked += max(0, named-1)
				got := ""
				if p := cfg.PoolOf(a); p != nil {
					got = p.Name
				}
				if got != oldest {
					t.Errorf("%s belongs to %q, want %q", a, got, oldest)
				}
				owners := 0
				for _, p := range cfg.Pools {
					if p.Contains(a) {
						owners++
					}
				}
				if owners > 1 {
					t.Errorf("%s is in %d pools", a, owners)
				}
			}
		}
		overlaps := 0
		for _, f := range faults {
			if f.Reason == ReasonOverlappingPools {
				overlaps++
			}
		}
		if (asked > 0) != (overlaps > 0) {
			t.Errorf("%d addresses are named by a younger pool too, and there are %d faults of it", asked, overlaps)
		}
	})
}

// oldestNaming returns the oldest pool that names the address, and how many do.
func oldestNaming(pools []v1beta1.IPAddressPool, a netip.Addr) (string, int) {
	var oldest *v1beta1.IPAddressPool
	named := 0
	for i := range pools {
		p := &pools[i]
		if !names(p, a) {
			continue
		}
		named++
		if oldest == nil || p.CreationTimestamp.Before(&oldest.CreationTimestamp) ||
			(p.CreationTimestamp.Equal(&oldest.CreationTimestamp) && p.Name < oldest.Name) {
			oldest = p
		}
	}
	if oldest == nil {
		return "", 0
	}
	return oldest.Name, named
}

func names(p *v1beta1.IPAddressPool, a netip.Addr) bool {
	for _, text := range p.Spec.Addresses {
		if r, err := ParseRange(text); err == nil && r.Contains(a) {
			return true
		}
	}
	return false
}
