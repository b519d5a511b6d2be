package announce

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func candidates(names ...string) []Candidate {
	var cs []Candidate
	for _, n := range names {
		cs = append(cs, Candidate{Node: n})
	}
	return cs
}

func TestDecide(t *testing.T) {
	abc := candidates("node-a", "node-b", "node-c")
	preferred := []Candidate{{Node: "node-a", Weight: 10}, {Node: "node-b", Weight: 60}, {Node: "node-c", Weight: 60}}
	loads := func(a, b, c int) func(string) int {
		return func(n string) int { return map[string]int{"node-a": a, "node-b": b, "node-c": c}[n] }
	}
	key := netip.MustParseAddr("10.0.0.1")

	for name, tc := range map[string]struct {
		election Election
		node     string
		reason   Reason
	}{
		"no candidate": {Election{Key: key}, "", NoEligibleNode},
		"no candidate, the holder does not count": {Election{Key: key, Holder: "node-a"}, "", NoEligibleNode},
		"one candidate": {Election{Key: key, Candidates: abc[:1]}, "node-a", OnlyCandidate},
		"the holder keeps it though it holds most": {
			Election{Key: key, Candidates: abc, Holder: "node-a", Load: loads(9, 0, 0)}, "node-a", Holder},
		"a holder that is no candidate loses it": {
			Election{Key: key, Candidates: abc, Holder: "node-x", Load: loads(1, 0, 1)}, "node-b", FewestAddresses},
		"equal loads: the hash": {Election{Key: key, Candidates: abc, Load: loads(1, 1, 1)}, "node-b", LowestHash},
		"preference before load": {
			Election{Key: key, Candidates: preferred, Load: loads(0, 5, 6)}, "node-b", FewestAddresses},
		"preference alone": {
			Election{Key: key, Candidates: preferred[:2], Load: loads(0, 5, 6)}, "node-b", Preferred},
		"preference takes it from the holder": {
			Election{Key: key, Candidates: preferred[:2], Holder: "node-a", Load: loads(0, 5, 6)}, "node-b", Preferred},
		"a holder that is preferred as much keeps it": {
			Election{Key: key, Candidates: preferred, Holder: "node-c", Load: loads(0, 0, 6)}, "node-c", Holder},
	} {
		t.Run(name, func(t *testing.T) {
			node, reason := tc.election.Decide()
			if node != tc.node || reason != tc.reason {
				t.Errorf("got %q because of %s, want %q because of %s", node, reason, tc.node, tc.reason)
			}
		})
	}
}

// After the winners of an election, the next in line: with the hash alone, in the order of testdata/layer2.yaml.
func TestAfter(t *testing.T) {
	e := Election{Key: netip.MustParseAddr("10.0.0.2"), Candidates: candidates("node-a", "node-b", "node-c"), Holder: "node-a"}
	for passed, want := range []string{"node-b", "node-c", "node-a", "node-a"} {
		if got, _ := e.After(passed).Decide(); got != want {
			t.Errorf("after %d: %s, want %s", passed, got, want)
		}
	}
}

func genElection(t *rapid.T) (Election, map[string]int) {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-f]{1,3}`), 1, 8, rapid.ID).Draw(t, "names")
	loads := map[string]int{}
	e := Election{
		Key:    netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "key")}),
		Holder: rapid.SampledFrom(append(names, "", "gone")).Draw(t, "holder"),
		Load:   func(n string) int { return loads[n] },
	}
	for _, n := range names {
		loads[n] = rapid.IntRange(0, 3).Draw(t, "load")
		e.Candidates = append(e.Candidates, Candidate{Node: n, Weight: rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "weight")})
	}
	return e, loads
}

func TestEqualInputsEqualAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, _ := genElection(t)
		shuffled := e
		shuffled.Candidates = rapid.Permutation(e.Candidates).Draw(t, "shuffled")
		for round := range 3 {
			a, why := e.Decide()
			b, whyB := shuffled.Decide()
			if a != b || why != whyB {
				t.Fatalf("the order of candidates matters: %s (%s), %s (%s)", a, why, b, whyB)
			}
			e, shuffled = e.After(round), shuffled.After(round)
		}
	})
}

func TestPreferencesFirstThenSticky(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, _ := genElection(t)
		top, holderWeight := 0, -1
		for _, c := range e.Candidates {
			top = max(top, c.Weight)
			if c.Node == e.Holder {
				holderWeight = c.Weight
			}
		}
		node, _ := e.Decide()
		i := slices.IndexFunc(e.Candidates, func(c Candidate) bool { return c.Node == node })
		if i < 0 || e.Candidates[i].Weight != top {
			t.Fatalf("%q won, which is not of the highest weight: %+v", node, e)
		}
		if holderWeight == top && node != e.Holder {
			t.Fatalf("%q took it from the holder %q", node, e.Holder)
		}
	})
}

func TestRemovingAnotherMovesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, _ := genElection(t)
		winner, _ := e.Decide()
		i := rapid.IntRange(0, len(e.Candidates)-1).Draw(t, "removed")
		if e.Candidates[i].Node == winner {
			return
		}
		e.Candidates = slices.Delete(slices.Clone(e.Candidates), i, i+1)
		if now, _ := e.Decide(); now != winner {
			t.Fatalf("removing a loser moved the address from %s to %s", winner, now)
		}
	})
}

// cluster elects as speakers do: one address after the other, each decision adding to the load.
type cluster struct {
	claims *Claims
	nodes  []string
}

func (c *cluster) settle(addrs []netip.Addr) {
	for _, a := range addrs {
		old := c.claims.Get(a)
		node, _ := Election{Key: a, Candidates: candidates(c.nodes...), Holder: old.Owner, Load: c.claims.Load}.Decide()
		if node != old.Owner {
			c.claims.Merge(Claim{Addr: a, Owner: node, Epoch: old.Epoch + 1})
		}
	}
}

func (c *cluster) spread() (lowest, highest int) {
	lowest, highest = c.claims.Load(c.nodes[0]), c.claims.Load(c.nodes[0])
	for _, n := range c.nodes {
		lowest, highest = min(lowest, c.claims.Load(n)), max(highest, c.claims.Load(n))
	}
	return lowest, highest
}

func TestEvenSpreadAndStickiness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cluster{claims: NewClaims()}
		for i := range rapid.IntRange(2, 9).Draw(t, "nodes") {
			c.nodes = append(c.nodes, fmt.Sprint("node-", i))
		}
		var addrs []netip.Addr
		for i := range rapid.IntRange(0, 120).Draw(t, "addresses") {
			addrs = append(addrs, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
		}
		c.settle(addrs)
		if lowest, highest := c.spread(); highest-lowest > 1 {
			t.Fatalf("fresh addresses: from %d to %d per node", lowest, highest)
		}

		before := map[netip.Addr]string{}
		for claim := range c.claims.All() {
			before[claim.Addr] = claim.Owner
		}
		gone := c.nodes[0]
		c.nodes = c.nodes[1:]
		c.settle(addrs)
		if lowest, highest := c.spread(); highest-lowest > 1 {
			t.Fatalf("after %s left: from %d to %d per node", gone, lowest, highest)
		}
		after := map[netip.Addr]string{}
		for claim := range c.claims.All() {
			if after[claim.Addr] = claim.Owner; before[claim.Addr] != gone && before[claim.Addr] != claim.Owner {
				t.Fatalf("%v moved from %s to %s, though only %s left", claim.Addr, before[claim.Addr], claim.Owner, gone)
			}
		}

		c.nodes = append(c.nodes, gone)
		c.settle(addrs)
		for claim := range c.claims.All() {
			if claim.Owner != after[claim.Addr] {
				t.Fatalf("%v moved from %s to %s, though nobody left", claim.Addr, after[claim.Addr], claim.Owner)
			}
		}
	})
}
