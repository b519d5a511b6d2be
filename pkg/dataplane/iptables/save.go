package iptables

import "strings"

// parse reads the output of iptables-save for one table: its chains and their rules, those without rules too.
func parse(table, saved string) map[place][]string {
	rules := map[place][]string{}
	for line := range strings.Lines(saved) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			if at := (place{table, name}); rules[at] == nil {
				rules[at] = nil
			}
		case strings.HasPrefix(line, "-A "):
			name, rule, _ := strings.Cut(line[len("-A "):], " ")
			at := place{table, name}
			rules[at] = append(rules[at], rule)
		}
	}
	return rules
}

// target is the chain or the target that a rule jumps to; it may be empty.
func target(rule string) string {
	i := strings.LastIndex(rule, "-j ")
	if i < 0 {
		return ""
	}
	name, _, _ := strings.Cut(rule[i+len("-j "):], " ")
	return name
}
