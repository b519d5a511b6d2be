package rival

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

const (
	// servicesChain is in table nat wherever kube-proxy uses iptables, in its ipvs mode too.
	servicesChain = "KUBE-SERVICES"
	// canary is an empty chain in each of the tables below, by which kube-proxy in iptables mode notices that somebody flushed them.
	canary = "KUBE-PROXY-CANARY"
	// ownerChain is an empty chain in table nat by which Steelyard's iptables backend says that the chains with kube-proxy's names are its own.
	ownerChain = "STLY-OWNER"
	// probe is the comment of a rule without a target, which does nothing to packets.
	probe = "steelyard: a living kube-proxy removes this"

	proxyTable = "kube-proxy" // of kube-proxy in nftables mode
)

// The tables that kube-proxy uses. It looks for its canary in the first, and in the others only when it is gone there.
var xtables = []string{"mangle", "nat", "filter"}

// tool is one variant and family of iptables. Each has rules of its own in the kernel.
type tool struct {
	program string
	tables  []string // of xtables those that are in the kernel: asking the legacy variant for another would make it
}

// look sees what there is.
func look(ctx context.Context) (sight, error) {
	var s sight
	var err error
	if s.listeners, err = listeners(ctx); err != nil {
		return s, err
	}
	for _, name := range []string{ipvsLink, ciliumLink} {
		_, err := netlink.LinkByName(name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err != nil {
			return s, fmt.Errorf("looking for interface %s: %w", name, err)
		}
		s.links = append(s.links, name)
	}
	tables, err := nftTables()
	if err != nil {
		return s, err
	}
	for _, t := range tables {
		if name := familyNames[t.Family]; t.Name == proxyTable && name != "" {
			s.tables = append(s.tables, name+" "+t.Name)
		}
	}
	tools, err := tools(tables)
	if err != nil {
		return s, err
	}
	for _, t := range tools {
		c, err := t.chains(ctx)
		if err != nil {
			return s, err
		}
		if c.services || c.canary {
			s.chains = append(s.chains, c)
		}
	}
	return s, nil
}

var familyNames = map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}

func nftTables() ([]*nftables.Table, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("looking for other proxies' nftables tables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("looking for other proxies' nftables tables (NET_ADMIN and CONFIG_NF_TABLES are needed): %w", err)
	}
	return tables, nil
}

// tools are those that have tables in the kernel.
func tools(tables []*nftables.Table) ([]tool, error) {
	var found []tool
	for _, family := range []struct {
		of            nftables.TableFamily
		program, proc string
	}{
		{nftables.TableFamilyIPv4, "iptables", "/proc/net/ip_tables_names"},
		{nftables.TableFamilyIPv6, "ip6tables", "/proc/net/ip6_tables_names"},
	} {
		nft, legacy := tool{program: family.program + "-nft"}, tool{program: family.program + "-legacy"}
		names, err := os.ReadFile(family.proc)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: the module is not loaded
			return nil, fmt.Errorf("looking for rules of %s: %w", legacy.program, err)
		}
		for _, table := range xtables {
			if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Family == family.of && t.Name == table }) {
				nft.tables = append(nft.tables, table)
			}
			if slices.Contains(strings.Fields(string(names)), table) {
				legacy.tables = append(legacy.tables, table)
			}
		}
		for _, t := range []tool{nft, legacy} {
			if len(t.tables) > 0 {
				found = append(found, t)
			}
		}
	}
	return found, nil
}

// chains looks for kube-proxy's. It is called again and again, and every question about a legacy table reads all of it: so the one about our
// own chains comes first.
func (t tool) chains(ctx context.Context) (c chains, err error) {
	c.tool = t
	if slices.Contains(t.tables, "mangle") {
		if _, c.canary, err = t.run(ctx, "mangle", "-S", canary); err != nil {
			return c, err
		}
	}
	if !slices.Contains(t.tables, "nat") {
		return c, nil
	}
	if _, c.ours, err = t.run(ctx, "nat", "-S", ownerChain); err != nil || c.ours {
		return c, err
	}
	first, ok, err := t.run(ctx, "nat", "-S", servicesChain, "1")
	c.services, c.poked = ok, strings.Contains(first, probe)
	return c, err
}

// poke disturbs the chains in a way that changes nothing for packets and that a living kube-proxy repairs, and returns what it disturbed.
// kube-proxy makes its canaries again once all are gone, and then writes all its rules; in ipvs mode it has none, but writes its rules
// periodically.
func poke(ctx context.Context, found []chains) (poked []chains, err error) {
	for _, c := range found {
		for _, table := range c.tables {
			// It is not there if there are only ipvs mode's chains, or if a proxy that was stopped cleans up.
			if _, _, err := c.run(ctx, table, "-X", canary); err != nil {
				return poked, err
			}
		}
		// A speaker that was killed while it looked may have left the probe there.
		if c.services && !c.poked {
			_, ok, err := c.run(ctx, "nat", "-I", servicesChain, "-m", "comment", "--comment", probe)
			if err != nil {
				return poked, err
			}
			c.poked = ok
		}
		poked = append(poked, c)
	}
	return poked, nil
}

// unpoke takes back what can be: a canary that nobody looks after is of no use.
func unpoke(ctx context.Context, poked []chains) {
	for _, c := range poked {
		if c.poked {
			// It fails where a proxy has removed the rule, which is what it is for; elsewhere the rule does no harm.
			_, _, _ = c.run(ctx, "nat", "-D", servicesChain, "-m", "comment", "--comment", probe)
		}
	}
}

// run runs the tool on a table. It returns false if the tool ended with status 1: what was asked for is not there.
func (t tool) run(ctx context.Context, table string, args ...string) (string, bool, error) {
	out, err := run(ctx, "", t.program, append([]string{"-w", "5", "-t", table}, args...)...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", false, nil
	}
	return out, err == nil, err
}

func run(ctx context.Context, stdin, program string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, program, args...)
	var out, complaint strings.Builder
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &complaint
	err := command.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("the kernel has rules that only %s can read, but it is not in PATH: install iptables in both variants", program)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}
