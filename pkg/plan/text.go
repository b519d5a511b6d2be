package plan

import (
	"fmt"
	"net/netip"
	"strings"
)

// String returns the plan for people: a line for each Service that something changes for, with the reasons below it, and a summary.
func (p *Plan) String() string {
	var b strings.Builder
	var names, changes []string
	for i := range p.Services {
		s := &p.Services[i]
		names, changes = append(names, s.Namespace+"/"+s.Name), append(changes, s.change())
	}
	if len(names) > 0 {
		name, change := widest("SERVICE", names), widest("ADDRESSES", changes)
		fmt.Fprintf(&b, "%-*s  %-*s  OUTCOME\n", name, "SERVICE", change, "ADDRESSES")
		for i := range p.Services {
			s := &p.Services[i]
			fmt.Fprintf(&b, "%-*s  %-*s  %s\n", name, names[i], change, changes[i], s.outcome())
			for _, detail := range s.details() {
				fmt.Fprintf(&b, "    %s\n", detail)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString(p.summary() + "\n")
	if len(p.Faults) > 0 {
		b.WriteString("\nWhat will be wrong with the configuration and is not now:\n")
		for _, f := range p.Faults {
			fmt.Fprintf(&b, "    %s %q: %s: %s\n", f.Kind, f.Name, f.Field, f.Message)
		}
	}
	if len(p.NotKnown) > 0 {
		b.WriteString("\nThe plan may be wrong, because these could not be read:\n")
		for _, g := range p.NotKnown {
			fmt.Fprintf(&b, "    %s: %s\n", g.Resource, g.Why)
		}
	}
	return b.String()
}

func (s *Service) change() string {
	if s.Outcome == Keeps {
		return list(s.From)
	}
	return list(s.From) + " -> " + list(s.To)
}

func (s *Service) outcome() string {
	silent := "nobody announces it"
	if len(s.Silent) < len(s.To) {
		silent = "nobody announces " + list(s.Silent)
	}
	switch {
	case s.Outcome == Keeps && len(s.Silent) > 0:
		return silent
	case s.Outcome == Keeps:
		return "announced otherwise"
	case len(s.Silent) > 0:
		return string(s.Outcome) + ", " + silent
	}
	return string(s.Outcome)
}

func (s *Service) details() []string {
	var all []string
	if s.Message != "" {
		all = append(all, s.Message)
	}
	if len(s.Silent) > 0 {
		all = append(all, "nobody would announce "+list(s.Silent)+" any more, so have an advertisement select its pool, a node and, for BGP, a peer")
	}
	all = append(all, announcers("no longer announced", s.Lost)...)
	return append(all, announcers("newly announced", s.Gained)...)
}

// announcers puts those of the local network and those of each peer into a line.
func announcers(what string, announcers []Announcer) []string {
	const enough = 5
	var lines []string
	for len(announcers) > 0 {
		peer, n := announcers[0].Peer, 1
		for n < len(announcers) && announcers[n].Peer == peer {
			n++
		}
		where := "on the local network"
		if peer != "" {
			where = "to BGPPeer " + peer
		}
		var nodes []string
		for _, a := range announcers[:min(n, enough)] {
			nodes = append(nodes, a.Node)
		}
		more := ""
		if n > enough {
			more = fmt.Sprintf(" and %d more", n-enough)
		}
		lines = append(lines, fmt.Sprintf("%s %s by %s%s", what, where, strings.Join(nodes, ", "), more))
		announcers = announcers[n:]
	}
	return lines
}

// summary counts the Services, each under the worst that happens to it.
func (p *Plan) summary() string {
	counts := map[string]int{}
	for i := range p.Services {
		switch s := &p.Services[i]; {
		case s.Outcome != Keeps:
			counts[string(s.Outcome)]++
		case len(s.Silent) > 0:
			counts["silent"]++
		default:
			counts["otherwise"]++
		}
	}
	var parts []string
	for _, part := range []struct{ key, one, many string }{
		{string(Loses), "loses an address", "lose an address"},
		{string(Moves), "moves to another address", "move to another address"},
		{"silent", "has an address that nobody announces any more", "have an address that nobody announces any more"},
		{string(Gets), "gets an address", "get an address"},
		{"otherwise", "is announced otherwise", "are announced otherwise"},
	} {
		if n := counts[part.key]; n == 1 {
			parts = append(parts, "1 Service "+part.one)
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d Services %s", n, part.many))
		}
	}
	if len(parts) == 0 {
		parts = []string{"Nothing changes"}
	}
	return fmt.Sprintf("%s. Services that keep their addresses and announcers: %d.", strings.Join(parts, ", "), p.Unchanged)
}

func list(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "none"
	}
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

func widest(head string, cells []string) int {
	width := len(head)
	for _, cell := range cells {
		width = max(width, len(cell))
	}
	return width
}
