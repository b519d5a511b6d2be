package iptables

// place is a chain of a table.
type place struct{ table, chain string }

// chain is a chain that is ours alone, with its rules in order.
type chain struct {
	place
	rules []string
}

// layout is what a family has, or should have. Rules are spelled the way iptables-save prints them, without "-A CHAIN", so that they can
// be compared with what is in the kernel.
type layout struct {
	// chains are written as a whole. A chain comes after those that it jumps to.
	chains []chain
	// shared are chains that many ports, or others than us, have rules in. The order does not matter for ours.
	shared map[place][]string
	// tails are the rules that have to be the last ones of a shared chain.
	tails map[place][]string
	// sets are the IP sets that rules refer to.
	sets []string
}

func newLayout() *layout {
	return &layout{shared: map[place][]string{}, tails: map[place][]string{}}
}

func (l *layout) chain(table, name string, rules ...string) {
	l.chains = append(l.chains, chain{place{table, name}, rules})
}

func (l *layout) share(table, name string, rules ...string) {
	at := place{table, name}
	l.shared[at] = append(l.shared[at], rules...)
}
