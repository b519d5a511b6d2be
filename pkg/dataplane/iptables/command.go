package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// commands are the programs of one family and one variant.
type commands struct {
	prefix  string // "ip" or "ip6"
	variant string // "-nft", "-legacy", or empty for the machine's default
}

func (c commands) name(suffix string) string { return c.prefix + "tables" + c.variant + suffix }

// save returns what is in a table.
func (c commands) save(ctx context.Context, table string) (map[place][]string, error) {
	out, err := run(ctx, "", c.name("-save"), "-t", table)
	if err != nil {
		return nil, err
	}
	return parse(table, out), nil
}

// list returns the rules of one chain.
func (c commands) list(ctx context.Context, at place) (map[place][]string, error) {
	out, err := run(ctx, "", c.name(""), "-w", "5", "-t", at.table, "-S", at.chain)
	if err != nil {
		return nil, err
	}
	return parse(at.table, out), nil
}

// restore applies the output of plan.inputs.
func (c commands) restore(ctx context.Context, input string) error {
	_, err := run(ctx, input, c.name("-restore"), "-w", "5", "--noflush")
	return err
}

// run runs a program; its error says what the program complained of, and about which line of its input.
func run(ctx context.Context, input, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, complaint(stderr.String(), input))
	}
	return stdout.String(), nil
}

var lineNumber = regexp.MustCompile(`line:? (\d+)`)

// complaint is what a program wrote to its standard error, in one line, with the line of input that it names.
func complaint(stderr, input string) string {
	text := strings.Join(strings.Fields(stderr), " ")
	if found := lineNumber.FindStringSubmatch(stderr); found != nil {
		n, _ := strconv.Atoi(found[1])
		if lines := strings.Split(input, "\n"); n >= 1 && n <= len(lines) {
			return fmt.Sprintf("%s (the line is %q)", text, lines[n-1])
		}
	}
	return text
}

// variant finds out whether this machine's rules are in nf_tables or in the legacy tables: rules in the other one would work too, but no
// one who looks at the machine would find them, and which come first would be by chance. The kubelet leaves chains as a hint.
func variant(ctx context.Context) string {
	var rules [2]int
	variants := [2]string{"-nft", "-legacy"}
	for i, v := range variants {
		for _, prefix := range []string{"ip", "ip6"} {
			out, err := run(ctx, "", commands{prefix, v}.name("-save"))
			if errors.Is(err, exec.ErrNotFound) {
				return ""
			}
			if strings.Contains(out, ":KUBE-IPTABLES-HINT ") || strings.Contains(out, ":KUBE-KUBELET-CANARY ") {
				return v
			}
			rules[i] += strings.Count(out, "\n-A ")
		}
	}
	if rules[1] > rules[0] {
		return variants[1]
	}
	return variants[0]
}

// family is what a backend has for one IP family.
type family struct {
	dataplane.Family
	commands
	sets bool // the kernel has IP sets
}
