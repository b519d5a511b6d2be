package announce

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var vip = netip.MustParseAddr("192.0.2.10")

func TestSupersedes(t *testing.T) {
	claim := func(owner string, epoch uint64, flags ...string) Claim {
		return Claim{Addr: vip, Owner: owner, Epoch: epoch,
			Quorum: slices.Contains(flags, "quorum"), Probing: slices.Contains(flags, "probing")}
	}
	for name, tc := range map[string]struct{ winner, loser Claim }{
		"a later claim":                                    {claim("b", 2), claim("a", 1)},
		"the survivor of two, without quorum":              {claim("b", 2), claim("a", 1, "quorum")},
		"at the same time, the majority's":                 {claim("b", 2, "quorum"), claim("a", 2)},
		"at the same time, a claim beats a release":        {claim("b", 2), claim("", 2)},
		"a release of the majority beats a minority claim": {claim("", 2, "quorum"), claim("a", 2)},
		"at the same time, the smaller name":               {claim("a", 2), claim("b", 2)},
		"one who has probed":                               {claim("a", 2), claim("a", 2, "probing")},
		"any claim beats none":                             {claim("a", 1), Claim{Addr: vip}},
	} {
		t.Run(name, func(t *testing.T) {
			if !tc.winner.Supersedes(tc.loser) {
				t.Errorf("%+v does not supersede %+v", tc.winner, tc.loser)
			}
			if tc.loser.Supersedes(tc.winner) {
				t.Errorf("%+v supersedes %+v", tc.loser, tc.winner)
			}
		})
	}
}

func genClaim(t *rapid.T) Claim {
	return Claim{
		Addr:    netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, "host") % 4}),
		Owner:   rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "owner"),
		Epoch:   rapid.Uint64Range(1, 4).Draw(t, "epoch"),
		Quorum:  rapid.Bool().Draw(t, "quorum"),
		Probing: rapid.Bool().Draw(t, "probing"),
	}
}

func TestSupersedesIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genClaim(t), genClaim(t), genClaim(t)
		a.Addr, b.Addr, c.Addr = vip, vip, vip
		if a.Supersedes(b) && b.Supersedes(a) {
			t.Fatalf("both of %+v and %+v supersede the other", a, b)
		}
		if a != b && !a.Supersedes(b) && !b.Supersedes(a) {
			t.Fatalf("neither of %+v and %+v supersedes the other", a, b)
		}
		if a.Supersedes(b) && b.Supersedes(c) && !a.Supersedes(c) {
			t.Fatalf("not transitive: %+v, %+v, %+v", a, b, c)
		}
	})
}

// Merging is commutative, associative and idempotent if and only if every order, with any repetition, gives the same table.
func TestMergeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		claims := rapid.SliceOf(rapid.Custom(genClaim)).Draw(t, "claims")
		one, other := NewClaims(), NewClaims()
		for _, c := range claims {
			one.Merge(c)
		}
		for _, c := range rapid.Permutation(slices.Concat(claims, claims)).Draw(t, "again") {
			other.Merge(c)
		}
		if !maps.Equal(one.table, other.table) {
			t.Fatalf("the order matters:\n%v\n%v", one.table, other.table)
		}
		if !maps.Equal(one.load, other.load) {
			t.Fatalf("the order matters for the load: %v, %v", one.load, other.load)
		}
	})
}

func TestMergeCountsTheLoad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewClaims()
		for _, c := range rapid.SliceOf(rapid.Custom(genClaim)).Draw(t, "claims") {
			before := table.Get(c.Addr)
			if changed := table.Merge(c); changed != c.Supersedes(before) {
				t.Fatalf("merging %+v over %+v says changed=%v", c, before, changed)
			}
		}
		counted := map[string]int{}
		for c := range table.All() {
			counted[c.Owner]++
		}
		for _, node := range []string{"a", "b", "c"} {
			if table.Load(node) != counted[node] {
				t.Fatalf("the load of %s is %d, it holds %d", node, table.Load(node), counted[node])
			}
		}
	})
}

func TestRegainedByOneSideOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genClaim(t), genClaim(t)
		if Regained(a, b) && Regained(b, a) {
			t.Fatalf("%+v and %+v would wrestle", a, b)
		}
	})
}

func TestMessagesSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		claims := rapid.SliceOf(rapid.Custom(func(t *rapid.T) Claim {
			c := genClaim(t)
			c.Epoch = rapid.Uint64Range(1, maxEpoch).Draw(t, "long epoch")
			c.Owner = rapid.StringMatching(`([a-z][a-z0-9.-]{0,60})?`).Draw(t, "name")
			if rapid.Bool().Draw(t, "v6") {
				c.Addr = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: rapid.Byte().Draw(t, "low")})
			}
			return c
		})).Draw(t, "claims")
		limit := rapid.IntRange(150, 1200).Draw(t, "limit")

		var got []Claim
		for _, m := range Messages(claims, limit) {
			if len(m) > limit {
				t.Fatalf("a message has %d bytes, over the limit of %d", len(m), limit)
			}
			part, full, err := Decode(m)
			if err != nil || full {
				t.Fatalf("decode: full=%v, %v", full, err)
			}
			got = append(got, part...)
		}
		if !slices.Equal(got, claims) {
			t.Fatalf("sent %v\ngot  %v", claims, got)
		}
	})
}

func TestStateSurvivesTheWire(t *testing.T) {
	table := NewClaims()
	for i := range 300 {
		table.Merge(Claim{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Owner: fmt.Sprint("node-", i%3), Epoch: uint64(i + 1)})
	}
	got, full, err := Decode(table.State())
	if err != nil || !full {
		t.Fatalf("decode: full=%v, %v", full, err)
	}
	if want := table.Sorted(); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if _, full, err := Decode(NewClaims().State()); err != nil || !full {
		t.Errorf("an empty table: full=%v, %v", full, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(NewClaims().State())
	f.Add(encode(formatDelta, []Claim{
		{Addr: vip, Owner: "node-1", Epoch: 300, Quorum: true},
		{Addr: netip.MustParseAddr("2001:db8::1"), Epoch: 7, Probing: true},
	}))
	f.Add([]byte{formatDelta, 1, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, _, err := Decode(b)
		if err != nil {
			if claims != nil {
				t.Fatalf("claims beside an error: %v", claims)
			}
			return
		}
		for _, c := range claims {
			if !c.Addr.IsValid() || c.Addr.Is4In6() || c.Epoch == 0 || c.Epoch+1 == 0 {
				t.Fatalf("invalid claim %+v", c)
			}
		}
		again, _, err := Decode(encode(formatDelta, claims))
		if err != nil || !slices.Equal(again, claims) {
			t.Fatalf("does not encode again: %v, %v, %v", claims, again, err)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	good := encode(formatDelta, []Claim{{Addr: vip, Owner: "a", Epoch: 1}})
	for name, b := range map[string][]byte{
		"nothing":            {},
		"another format":     {0x7f, 0},
		"a cut message":      good[:len(good)-1],
		"an unknown flag":    {formatDelta, 0, 0x80, 1, 2, 3, 4, 0, 1},
		"an unknown owner":   {formatDelta, 0, 0, 1, 2, 3, 4, 1, 1},
		"epoch 0":            {formatDelta, 0, 0, 1, 2, 3, 4, 0, 0},
		"an endless epoch":   {formatDelta, 0, 0, 1, 2, 3, 4, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
		"a nameless owner":   {formatDelta, 1, 0},
		"IPv4 in IPv6 form":  {formatDelta, 0, flagIPv6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4, 0, 1},
		"owners without end": {formatDelta, 255, 255, 255, 255, 15},
	} {
		t.Run(name, func(t *testing.T) {
			if claims, _, err := Decode(b); err == nil {
				t.Errorf("got %v, want an error", claims)
			}
		})
	}
}
