package announce

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// Claim says which node is responsible for an address. Of two claims one supersedes the other, on every node the same one, so
// speakers that have seen the same claims, in any order and any number of times, agree on the owner.
type Claim struct {
	Addr netip.Addr
	// Owner is a node's name; empty means that the address was released.
	Owner string
	// Epoch is one more than that of the claim that this one was made against. The first claim has epoch 1.
	Epoch uint64
	// Quorum: the owner saw more than half of the speakers when it made the claim. It decides between claims that were made at the
	// same time, as happens on the two sides of a partition.
	Quorum bool
	// Probing: the owner does not yet know whether a stranger has the address, and does not answer for it.
	Probing bool
}

// Supersedes tells whether claim c takes the place of b. It is a strict total order of the claims on one address.
//
// Epoch goes before quorum: the survivor of a cluster of two has no quorum, yet its claim must outlive the return of the dead
// node's. What a side without quorum took during a partition is taken back by Regained.
func (c Claim) Supersedes(b Claim) bool { return c.compare(b) > 0 }

func (c Claim) compare(b Claim) int {
	return cmp.Or(
		cmp.Compare(c.Epoch, b.Epoch),
		compareBool(c.Quorum, b.Quorum),
		compareBool(c.Owner != "", b.Owner != ""),
		cmp.Compare(b.Owner, c.Owner),
		compareBool(b.Probing, c.Probing),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// Regained tells whether the owner of `mine` may take the address back from `theirs`, which supersedes it: it was taken by a
// speaker that saw only a minority, while `mine` was made by one that saw the majority. At most one of two speakers may, so they
// don't wrestle.
func Regained(mine, theirs Claim) bool { return mine.Quorum && !theirs.Quorum }

// Claims is the table of claims, which is replicated to all speakers. The zero value is not usable; it is not safe for concurrent
// use.
type Claims struct {
	table map[netip.Addr]Claim
	load  map[string]int
}

// NewClaims returns an empty table.
func NewClaims() *Claims {
	return &Claims{table: map[netip.Addr]Claim{}, load: map[string]int{}}
}

// Get returns the claim on the address. Its Epoch is 0 if there was never one.
func (c *Claims) Get(a netip.Addr) Claim {
	if claim, ok := c.table[a]; ok {
		return claim
	}
	return Claim{Addr: a}
}

// Merge takes the claim into the table unless the table has it or one that supersedes it, and tells whether it did.
func (c *Claims) Merge(claim Claim) bool {
	old, ok := c.table[claim.Addr]
	if ok && !claim.Supersedes(old) {
		return false
	}
	if old.Owner != "" {
		c.load[old.Owner]--
		if c.load[old.Owner] == 0 {
			delete(c.load, old.Owner)
		}
	}
	if claim.Owner != "" {
		c.load[claim.Owner]++
	}
	c.table[claim.Addr] = claim
	return true
}

// Load returns how many addresses the node has claimed.
func (c *Claims) Load(node string) int { return c.load[node] }

// Len returns how many addresses the table knows, the released ones included.
func (c *Claims) Len() int { return len(c.table) }

// All returns every claim, in no order.
func (c *Claims) All() iter.Seq[Claim] { return maps.Values(c.table) }

// Sorted returns every claim, ordered by address.
func (c *Claims) Sorted() []Claim {
	return slices.SortedFunc(c.All(), func(a, b Claim) int { return a.Addr.Compare(b.Addr) })
}
