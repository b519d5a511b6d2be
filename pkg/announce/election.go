// Package announce decides which node announces an address, and keeps the decision: eligibility, election, and the replicated
// table of claims. It is pure: equal inputs give equal answers on every node.
package announce

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
)

// Candidate is a node that may announce an address.
type Candidate struct {
	Node string
	// Weight is the sum of the preferredNodeSelectors that match the node; 0 if there is no preference.
	Weight int
	// Interfaces are those that it should answer on; empty for all.
	Interfaces []string
}

// Election is what an election is decided by.
type Election struct {
	// Key is the first address of those that are announced together.
	Key netip.Addr
	// Candidates, in any order, without duplicates.
	Candidates []Candidate
	// Holder is the node that has the address now, if any.
	Holder string
	// Load returns how many addresses a node holds; nil to leave that out of account.
	Load func(node string) int
}

// Decide returns the node that shall announce, or "" if there is no candidate, and the rule that decided.
//
// The holder keeps the address unless another candidate is preferred, so that a returning node takes nothing back. A fresh
// address goes to a preferred node, then to the one that holds the fewest addresses, then to the lowest hash.
func (e Election) Decide() (node string, reason Reason) {
	if len(e.Candidates) == 0 {
		return "", NoEligibleNode
	}
	weight := e.Candidates[0].Weight
	for _, c := range e.Candidates {
		weight = max(weight, c.Weight)
	}
	load := func(c Candidate) int { return 0 }
	if e.Load != nil {
		load = func(c Candidate) int { return e.Load(c.Node) }
	}
	// From round to round fewer are left, and the last rule that made them fewer has decided.
	var preferred, fewest int
	lowestLoad := 0
	for _, c := range e.Candidates {
		if c.Weight < weight {
			continue
		}
		if c.Node == e.Holder {
			if len(e.Candidates) == 1 {
				return c.Node, OnlyCandidate
			}
			return c.Node, Holder
		}
		switch l := load(c); {
		case preferred == 0 || l < lowestLoad:
			lowestLoad, fewest = l, 1
		case l == lowestLoad:
			fewest++
		}
		preferred++
	}
	node = e.lowestHash(func(c Candidate) bool { return c.Weight == weight && load(c) == lowestLoad })
	switch {
	case fewest > 1:
		reason = LowestHash
	case fewest < preferred:
		reason = FewestAddresses
	case preferred < len(e.Candidates):
		reason = Preferred
	default:
		reason = OnlyCandidate
	}
	return node, reason
}

// lowestHash spreads addresses among equals: when a node leaves, only its own addresses fall to others (rendezvous hashing).
func (e Election) lowestHash(left func(Candidate) bool) string {
	var node string
	var lowest [sha256.Size]byte
	buf := make([]byte, 0, 128)
	for _, c := range e.Candidates {
		if !left(c) {
			continue
		}
		buf = append(append(buf[:0], c.Node...), '#')
		hash := sha256.Sum256(e.Key.AppendTo(buf))
		if d := bytes.Compare(hash[:], lowest[:]); node == "" || d < 0 || d == 0 && c.Node < node {
			node, lowest = c.Node, hash
		}
	}
	return node
}

// After returns the election without the winners of its first n rounds, as long as a candidate is left. It serves when those
// winners do not claim the address. Holder and load are left out of account: all speakers must agree though each sees
// them a little later or earlier.
func (e Election) After(n int) Election {
	e.Holder, e.Load = "", nil
	for ; n > 0 && len(e.Candidates) > 1; n-- {
		out, _ := e.Decide()
		left := make([]Candidate, 0, len(e.Candidates)-1)
		for _, c := range e.Candidates {
			if c.Node != out {
				left = append(left, c)
			}
		}
		e.Candidates = left
	}
	return e
}
