package config

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
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
	for i := range rapid.IntRange(0, 4).Draw(t, "reservations") {
		reservation := v1beta1.AddressReservation{ObjectMeta: metav1.ObjectMeta{
			Name:              fmt.Sprintf("reservation-%d", i),
			CreationTimestamp: metav1.NewTime(time.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created")), 0)),
		}}
		for range rapid.IntRange(0, 3).Draw(t, "entries") {
			entry := address(t, "first").String() + "-" + address(t, "last").String()
			reservation.Spec.Addresses = append(reservation.Spec.Addresses, entry)
		}
		if rapid.Bool().Draw(t, "for somebody") {
			reservation.Spec.For = &v1beta1.ReservedFor{Namespace: "shop"}
		}
		r.Reservations = append(r.Reservations, reservation)
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
	drawBGP(t, &r)
	for i := range rapid.IntRange(0, 3).Draw(t, "nodes") {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i), Labels: map[string]string{"parity": fmt.Sprint(i % 2)}}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address(t, "node").String()}}
		r.Nodes = append(r.Nodes, node)
	}
	return r
}

// drawBGP draws objects that quarrel with each other in every way, and are often faulty by themselves.
func drawBGP(t *rapid.T, r *Resources) {
	name := func(kind string, n int) string { return fmt.Sprintf("%s-%d", kind, rapid.IntRange(0, n).Draw(t, kind)) }
	parity := func(label string) []metav1.LabelSelector {
		return rapid.SampledFrom([][]metav1.LabelSelector{nil, nil, {{MatchLabels: map[string]string{"parity": "0"}}}, {{MatchLabels: map[string]string{"parity": "1"}}}}).Draw(t, label)
	}
	aged := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(rapid.IntRange(0, 2).Draw(t, "created")), 0))}
	}
	r.Namespace = "steelyard"
	for i := range rapid.IntRange(0, 3).Draw(t, "communities") {
		c := v1beta1.Community{ObjectMeta: aged(fmt.Sprintf("community-%d", i))}
		for range rapid.IntRange(0, 3).Draw(t, "aliases") {
			value := rapid.SampledFrom([]string{"1:1", "1:2", "large:1:2:3", "no-export", "1:70000"}).Draw(t, "value")
			c.Spec.Communities = append(c.Spec.Communities, v1beta1.CommunityAlias{Name: name("alias", 3), Value: value})
		}
		r.Communities = append(r.Communities, c)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "profiles") {
		p := v1beta1.BFDProfile{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("profile-%d", i)}}
		p.Spec.ReceiveInterval = rapid.SampledFrom([]*uint32{nil, ptr.To[uint32](5), ptr.To[uint32](100)}).Draw(t, "receive interval")
		p.Spec.EchoMode = rapid.SampledFrom([]*bool{nil, ptr.To(true)}).Draw(t, "echo")
		r.BFDProfiles = append(r.BFDProfiles, p)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "peers") {
		p := v1beta1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("peer-%d", i)}}
		p.Spec.MyASN, p.Spec.PeerASN = 64512, uint32(rapid.IntRange(0, 2).Draw(t, "ASN"))
		p.Spec.PeerAddress = address(t, "peer").String()
		p.Spec.RouterID = rapid.SampledFrom([]string{"", "", "10.0.0.1", "10.0.0.2"}).Draw(t, "router ID")
		p.Spec.NodeSelectors = parity("peer's nodes")
		p.Spec.BFDProfile = rapid.SampledFrom([]string{"", "profile-0", "profile-1"}).Draw(t, "profile")
		if rapid.Bool().Draw(t, "secret") {
			p.Spec.PasswordSecret = &v1beta1.PasswordSecret{Name: name("secret", 1)}
		}
		r.BGPPeers = append(r.BGPPeers, p)
	}
	r.Secrets = rapid.SampledFrom([]map[string]corev1.Secret{nil, {}, {"secret-0": {Type: corev1.SecretTypeBasicAuth, Data: map[string][]byte{"password": []byte("p")}}}}).Draw(t, "secrets")
	for i := range rapid.IntRange(0, 4).Draw(t, "BGP advertisements") {
		ad := v1beta1.BGPAdvertisement{ObjectMeta: aged(fmt.Sprintf("bgp-%d", i))}
		ad.Spec.LocalPref = uint32(rapid.IntRange(0, 2).Draw(t, "localPref"))
		ad.Spec.AggregationLength = rapid.SampledFrom([]*int32{nil, nil, ptr.To[int32](30), ptr.To[int32](33)}).Draw(t, "length")
		ad.Spec.NodeSelectors = parity("advertisement's nodes")
		for range rapid.IntRange(0, 2).Draw(t, "told") {
			ad.Spec.Peers = append(ad.Spec.Peers, name("peer", 4))
		}
		for range rapid.IntRange(0, 2).Draw(t, "told communities") {
			ad.Spec.Communities = append(ad.Spec.Communities, name("alias", 3))
		}
		if rapid.Bool().Draw(t, "by name") {
			ad.Spec.IPAddressPools = []string{name("pool", 6)}
		}
		r.BGPAdvertisements = append(r.BGPAdvertisements, ad)
	}
}

// sameConfig compares configurations by what they say.
var sameConfig = cmp.Options{
	cmp.Transformer("selector", func(s labels.Selector) string { return s.String() }),
	cmpopts.EquateComparable(netip.Addr{}),
}

// TestParseOrder demands equal answers for equal resources in another order. (G16)
func TestParseOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawResources(t)
		cfg, faults := Parse(r)
		shuffled := r
		shuffled.Pools = rapid.Permutation(r.Pools).Draw(t, "shuffled pools")
		shuffled.Reservations = rapid.Permutation(r.Reservations).Draw(t, "shuffled reservations")
		shuffled.L2Advertisements = rapid.Permutation(r.L2Advertisements).Draw(t, "shuffled advertisements")
		shuffled.BGPAdvertisements = rapid.Permutation(r.BGPAdvertisements).Draw(t, "shuffled BGP advertisements")
		shuffled.BGPPeers = rapid.Permutation(r.BGPPeers).Draw(t, "shuffled peers")
		shuffled.BFDProfiles = rapid.Permutation(r.BFDProfiles).Draw(t, "shuffled profiles")
		shuffled.Communities = rapid.Permutation(r.Communities).Draw(t, "shuffled communities")
		shuffled.Nodes = rapid.Permutation(r.Nodes).Draw(t, "shuffled nodes")
		again, faultsAgain := Parse(shuffled)
		if diff := cmp.Diff(cfg, again, sameConfig); diff != "" {
			t.Errorf("configuration:\n%s", diff)
		}
		if diff := cmp.Diff(faults, faultsAgain); diff != "" {
			t.Errorf("faults:\n%s", diff)
		}
	})
}

// TestBadObjectsHarmNothing demands that the configuration is the same with one bad object of each kind more, and so are the faults of all
// others.
func TestBadObjectsHarmNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawResources(t)
		if len(r.Pools) == 0 || len(r.BGPPeers) == 0 {
			t.Skip("with the first of its kind, advertisements no longer miss one")
		}
		cfg, faults := Parse(r)
		bad := metav1.ObjectMeta{Name: "bad", Labels: map[string]string{"parity": "9"}} // the oldest: it has no time of creation
		worse := r
		worse.Reservations = append(slices.Clone(r.Reservations), v1beta1.AddressReservation{ObjectMeta: bad,
			Spec: v1beta1.AddressReservationSpec{Addresses: []string{"none"}}})
		worse.L2Advertisements = append(slices.Clone(r.L2Advertisements), v1beta1.L2Advertisement{ObjectMeta: bad,
			Spec: v1beta1.L2AdvertisementSpec{IPAddressPools: []string{"none"}}})
		worse.BGPAdvertisements = append(slices.Clone(r.BGPAdvertisements), v1beta1.BGPAdvertisement{ObjectMeta: bad,
			Spec: v1beta1.BGPAdvertisementSpec{LocalPref: 9, Communities: []string{"none"}}})
		worse.BGPPeers = append(slices.Clone(r.BGPPeers), v1beta1.BGPPeer{ObjectMeta: bad,
			Spec: v1beta1.BGPPeerSpec{PeerAddress: r.BGPPeers[0].Spec.PeerAddress, RouterID: "10.0.0.3"}})
		worse.BFDProfiles = append(slices.Clone(r.BFDProfiles), v1beta1.BFDProfile{ObjectMeta: bad,
			Spec: v1beta1.BFDProfileSpec{DetectMultiplier: ptr.To[uint32](0)}})
		worse.Communities = append(slices.Clone(r.Communities), v1beta1.Community{ObjectMeta: bad,
			Spec: v1beta1.CommunitySpec{Communities: []v1beta1.CommunityAlias{{Name: "alias-0", Value: "none"}}}})
		again, faultsAgain := Parse(worse)

		// These two are in force, and do nothing.
		again.L2Advertisements = slices.DeleteFunc(again.L2Advertisements, func(a *L2Advertisement) bool { return a.Name == "bad" })
		again.Reservations = slices.DeleteFunc(again.Reservations, func(r *Reservation) bool { return r.Name == "bad" })
		if diff := cmp.Diff(cfg, again, sameConfig, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("configuration:\n%s", diff)
		}
		blamed := map[string]bool{}
		faultsAgain = slices.DeleteFunc(faultsAgain, func(f Fault) bool {
			if f.Name == "bad" {
				blamed[f.Kind] = true
			}
			return f.Name == "bad"
		})
		if len(blamed) != 6 {
			t.Errorf("only %v have faults", blamed)
		}
		// A name that nobody had is known now, as one that can't be read.
		ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Message" || p.Last().String() == ".Reason" }, cmp.Ignore())
		if diff := cmp.Diff(faults, faultsAgain, ignore, cmpopts.EquateEmpty()); diff != "" {
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

// TestParseReservations demands that reservations have among themselves what pools would have that say the same.
func TestParseReservations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawResources(t)
		var pools []v1beta1.IPAddressPool
		for _, reservation := range r.Reservations {
			pools = append(pools, v1beta1.IPAddressPool{ObjectMeta: reservation.ObjectMeta, Spec: v1beta1.IPAddressPoolSpec{Addresses: reservation.Spec.Addresses}})
		}
		cfg, _ := Parse(r)
		want, _ := Parse(Resources{Pools: pools})
		for i, reservation := range cfg.Reservations {
			if p := want.Pools[i]; p.Name != reservation.Name || !slices.Equal(p.Ranges, reservation.Ranges) {
				t.Errorf("%s has %v, and a pool would have %v", reservation.Name, reservation.Ranges, p.Ranges)
			}
		}
	})
}

// TestFits compares with looking at every network of that length.
func TestFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("255.255.255.0")}).Draw(t, "base").As4()
		at := func(last int) netip.Addr {
			base[3] = byte(last)
			return netip.AddrFrom4(base)
		}
		from := rapid.IntRange(0, 255).Draw(t, "from")
		r := Range{From: at(from), To: at(rapid.IntRange(from, 255).Draw(t, "to"))}
		length := rapid.IntRange(24, 32).Draw(t, "length")
		want := false
		for first := 0; first < 256; first += 1 << (32 - length) {
			want = want || (r.Contains(at(first)) && r.Contains(at(first+1<<(32-length)-1)))
		}
		if got := fits(r, length); got != want {
			t.Errorf("a /%d in %s: %t", length, r, got)
		}
	})
}
