package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// batch is how many chains one run of iptables-restore writes or deletes. The time that iptables-nft-restore takes grows with the square of
// their number: 10,000 Services with two endpoints each take 100 s at once, and 3 s in batches.
const batch = 500

// entry is a rule of a shared or built-in chain.
type entry struct {
	place
	rule string
}

// plan is a difference between two layouts.
type plan struct {
	declare []place // shared chains to make
	write   []chain // to make or to replace as a whole
	insert  []entry // at the head
	append  []entry // at the end
	remove  []entry
	jumps   []entry // at the head of built-in chains
	stale   []place // to delete
}

// between returns what makes want of have. Both may be the parts of layouts that a few ports have.
func between(have, want *layout) *plan {
	p := &plan{}
	now := make(map[place][]string, len(have.chains))
	for _, c := range have.chains {
		now[c.place] = c.rules
	}
	for _, c := range want.chains {
		rules, exists := now[c.place]
		if !exists || !slices.Equal(rules, c.rules) {
			p.write = append(p.write, c)
		}
		delete(now, c.place)
	}
	// Those that jump go before those that are jumped to, although iptables-restore in a batch would not mind.
	for _, c := range slices.Backward(have.chains) {
		if _, left := now[c.place]; left {
			p.stale = append(p.stale, c.place)
		}
	}
	for _, at := range places(have.shared, want.shared) {
		p.share(at, have.shared[at], want.shared[at], want.tails[at])
	}
	return p
}

// share brings the rules of a shared chain from have to want, followed by the tail.
func (p *plan) share(at place, have, want, tail []string) {
	if n := len(have) - len(tail); n >= 0 && slices.Equal(have[n:], tail) {
		have, tail = have[:n], nil
	}
	extra := make(map[string]int, len(have))
	for _, rule := range have {
		extra[rule]++
	}
	for _, rule := range want {
		if extra[rule] > 0 {
			extra[rule]--
			continue
		}
		p.insert = append(p.insert, entry{at, rule})
	}
	for _, rule := range have {
		if extra[rule] > 0 {
			extra[rule]--
			p.remove = append(p.remove, entry{at, rule})
		}
	}
	for _, rule := range tail {
		p.append = append(p.append, entry{at, rule})
	}
}

// places returns the keys of both, sorted.
func places(a, b map[place][]string) []place {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.SortFunc(all, func(x, y place) int {
		return strings.Compare(x.table+" "+x.chain, y.table+" "+y.chain)
	})
	return slices.Compact(all)
}

// inputs returns what to feed to iptables-restore, one run after the other. The chains of Services come before what leads to them, and go
// after it. A run is atomic for each section that names a table, and the sections are in an order in which a Service that gets its first
// endpoint, or loses its last one, is at no moment let through untranslated where it is about to be refused.
func (p *plan) inputs() []string {
	var inputs []string
	write, stale := p.write, p.stale
	for len(write) > batch {
		inputs = append(inputs, section(nat, nil, write[:batch], nil, nil)+section(filter, nil, write[:batch], nil, nil))
		write = write[batch:]
	}
	first := stale[:min(len(stale), batch)]
	// iptables-nft-restore keeps the chains that are jumped to in a sorted list, which it searches from the head for each rule: backwards is
	// fastest by far. The order in the kernel does not matter.
	slices.SortFunc(p.insert, func(a, b entry) int { return strings.Compare(target(b.rule), target(a.rule)) })
	ins, rest := lines("-I", p.insert), lines("-D", p.remove)
	jumps := lines("-I", p.jumps)
	for table := range jumps {
		slices.Reverse(jumps[table]) // each is inserted before the one that was inserted before it
	}
	tail := lines("-A", p.append)
	input := section(filter, p.declare, write, slices.Concat(ins[filter], jumps[filter]), nil) +
		section(nat, p.declare, write, slices.Concat(ins[nat], rest[nat], tail[nat], jumps[nat]), first) +
		section(filter, nil, nil, slices.Concat(rest[filter], tail[filter]), first)
	if input != "" {
		inputs = append(inputs, input)
	}
	for stale = stale[len(first):]; len(stale) > 0; stale = stale[min(len(stale), batch):] {
		some := stale[:min(len(stale), batch)]
		inputs = append(inputs, section(nat, nil, nil, nil, some)+section(filter, nil, nil, nil, some))
	}
	return inputs
}

// lines renders entries by table.
func lines(operation string, entries []entry) map[string][]string {
	byTable := map[string][]string{}
	for _, e := range entries {
		byTable[e.table] = append(byTable[e.table], fmt.Sprintf("%s %s %s\n", operation, e.chain, e.rule))
	}
	return byTable
}

// section returns what is to do in a table in one transaction; it is empty if there is nothing.
func section(table string, declare []place, write []chain, rules []string, stale []place) string {
	var b strings.Builder
	empty := func(at place) {
		if at.table == table {
			fmt.Fprintf(&b, ":%s - [0:0]\n", at.chain)
		}
	}
	for _, at := range declare {
		empty(at)
	}
	for _, c := range write {
		empty(c.place)
	}
	for _, at := range stale {
		empty(at)
	}
	for _, c := range write {
		if c.table != table {
			continue
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "-A %s %s\n", c.chain, rule)
		}
	}
	for _, line := range rules {
		b.WriteString(line)
	}
	for _, at := range stale {
		if at.table == table {
			fmt.Fprintf(&b, "-X %s\n", at.chain)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "*" + table + "\n" + b.String() + "COMMIT\n"
}
