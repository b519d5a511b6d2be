package rival

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// CleanKubeProxy removes what a kube-proxy that is no longer alive left on this node, in any of its modes. It takes as long as Look. It
// does nothing and returns an error if a proxy is alive. It leaves what is kubelet's, and the chains that rules of others still jump to.
func CleanKubeProxy(ctx context.Context, log *slog.Logger) error {
	found, err := new(Finder).Look(ctx)
	if err != nil {
		return err
	}
	if found.Alive {
		return fmt.Errorf("nothing was removed, because a proxy is alive on this node, %s: %s; stop it first (kube-proxy's DaemonSet, or k3s's --disable-kube-proxy)", found.Kind, found.Evidence)
	}
	return clean(ctx, log)
}

func clean(ctx context.Context, log *slog.Logger) error {
	tables, err := nftTables()
	if err != nil {
		return err
	}
	tools, err := tools(tables)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range tools {
		errs = append(errs, t.clean(ctx, log))
	}
	errs = append(errs, cleanTables(tables, log), cleanIPVS(log))
	return errors.Join(errs...)
}

func (t tool) clean(ctx context.Context, log *slog.Logger) error {
	c, err := t.chains(ctx)
	if err != nil {
		return err
	}
	theirs := isProxyChain
	if c.ours {
		theirs = func(chain string) bool { return chain == canary }
	}
	var errs []error
	for _, table := range t.tables {
		rules, err := run(ctx, "", t.program+"-save", "-t", table)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case !strings.Contains(rules, "*"+table+"\n") && (c.services || c.canary):
			// iptables-nft-save then ends with status 0 all the same.
			errs = append(errs, fmt.Errorf("%s cannot read table %s, because another program wrote rules into it with nft: remove kube-proxy's chains there (KUBE-*, but not KUBE-FIREWALL and KUBE-KUBELET-CANARY) with nft, or restart the node", t.program, table))
			continue
		}
		script, gone, kept := removal(rules, theirs)
		if len(kept) > 0 {
			log.Warn("some of kube-proxy's chains stay, because rules of others jump to them; once those rules are gone, clean up again",
				"program", t.program, "table", table, "chains", kept)
		}
		if gone == 0 {
			continue
		}
		// The legacy variant has a lock to wait for.
		if _, err := run(ctx, script, t.program+"-restore", "--noflush", "-w", "5"); err != nil {
			errs = append(errs, fmt.Errorf("removing kube-proxy's chains from table %s: %w", table, err))
			continue
		}
		log.Info("removed kube-proxy's chains", "program", t.program, "table", table, "chains", gone)
	}
	return errors.Join(errs...)
}

// isProxyChain is true of the chains that only kube-proxy makes. Not among them is what kubelet makes and looks after:
// KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, and KUBE-FIREWALL, which keeps the network away from the loopback's addresses.
func isProxyChain(name string) bool {
	switch name {
	case servicesChain, canary, "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL",
		// in ipvs mode
		"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER":
		return true
	}
	for _, prefix := range []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// removal makes of one table's rules, as iptables-save prints them, the input of iptables-restore --noflush that removes the chains that
// are theirs, and the jumps to them from the built-in chains, in one transaction. Chains that a rule elsewhere jumps to are kept, with
// all that they need: CNI's portmap plugin, for one, can be told to use KUBE-MARK-MASQ.
func removal(saved string, theirs func(chain string) bool) (script string, gone int, kept []string) {
	const (
		foreign = iota
		builtin
		proxy
	)
	owner := make(map[string]int)
	var table string
	var chains []string                // the proxy's
	jumps := make(map[string][]string) // from chains of the proxy, to others of its chains
	var dispatch, pending []string     // rules that jump from built-in chains, chains to keep
	for line := range strings.Lines(saved) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			table = line
		case strings.HasPrefix(line, ":"):
			name, policy, _ := strings.Cut(line[1:], " ")
			switch {
			case theirs(name):
				owner[name] = proxy
				chains = append(chains, name)
			case strings.HasPrefix(policy, "-"):
				owner[name] = foreign
			default:
				owner[name] = builtin
			}
		case strings.HasPrefix(line, "-A "):
			chain, rule, _ := strings.Cut(line[len("-A "):], " ")
			to := target(rule)
			if owner[to] != proxy {
				continue
			}
			switch owner[chain] {
			case proxy:
				jumps[chain] = append(jumps[chain], to)
			case builtin:
				dispatch = append(dispatch, "-D "+chain+" "+rule)
			default:
				pending = append(pending, to)
			}
		}
	}
	keep := make(map[string]bool)
	for len(pending) > 0 {
		chain := pending[0]
		pending = pending[1:]
		if !keep[chain] {
			keep[chain] = true
			kept = append(kept, chain)
			pending = append(pending, jumps[chain]...)
		}
	}
	slices.Sort(kept)

	var b strings.Builder
	fmt.Fprintln(&b, table)
	for _, rule := range dispatch {
		fmt.Fprintln(&b, rule)
	}
	chains = slices.DeleteFunc(chains, func(chain string) bool { return keep[chain] })
	for _, chain := range chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", chain) // empties it
	}
	for _, chain := range chains {
		fmt.Fprintf(&b, "-X %s\n", chain)
	}
	fmt.Fprintln(&b, "COMMIT")
	return b.String(), len(chains), kept
}

// target is the chain that a rule jumps or goes to, "" for none. Such a jump ends a rule; the last word of a quoted comment ends with a
// quotation mark, which no chain has in its name that is declared as one.
func target(rule string) string {
	words := strings.Fields(rule)
	if n := len(words); n >= 2 && (words[n-2] == "-j" || words[n-2] == "-g") {
		return words[n-1]
	}
	return ""
}

func cleanTables(tables []*nftables.Table, log *slog.Logger) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == proxyTable && familyNames[t.Family] != "" {
			conn.DelTable(t)
			log.Info("removing kube-proxy's nftables table", "table", familyNames[t.Family]+" "+t.Name)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("removing kube-proxy's nftables tables: %w", err)
	}
	return nil
}

// cleanIPVS removes the interface that has the Services' addresses in ipvs mode, and the sets that the rules refer to.
func cleanIPVS(log *slog.Logger) error {
	link, err := netlink.LinkByName(ipvsLink)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for interface %s: %w", ipvsLink, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("removing interface %s: %w", ipvsLink, err)
	}
	log.Info("removed kube-proxy's interface", "interface", ipvsLink)
	sets, err := netlink.IpsetListAll()
	if err != nil {
		return fmt.Errorf("listing kube-proxy's ipsets: %w", err)
	}
	for _, set := range sets {
		if !strings.HasPrefix(set.SetName, "KUBE-") {
			continue
		}
		if err := netlink.IpsetDestroy(set.SetName); err != nil {
			return fmt.Errorf("removing ipset %s: %w", set.SetName, err)
		}
	}
	// The virtual servers cannot be told from those of others, such as keepalived.
	if servers, err := os.ReadFile("/proc/net/ip_vs"); err == nil && strings.Count(string(servers), "\n") > 3 {
		log.Warn("virtual servers are left in IPVS, and go on taking connections to node ports; if none belongs to another program, remove them with ipvsadm --clear, or restart the node")
	}
	return nil
}
