// Package rival finds other service proxies on this node by what they do there, tells a living one from the rules that a dead one left,
// and removes what kube-proxy left. It needs the node's network namespace, NET_ADMIN and NET_RAW; it sees no other process.
package rival

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

// The kinds of proxies that can be told apart.
const (
	KubeProxyIPTables = "kube-proxy (iptables)"
	KubeProxyNFTables = "kube-proxy (nftables)"
	KubeProxyIPVS     = "kube-proxy (ipvs)"
	Cilium            = "cilium"
	Unknown           = "unknown"
)

// Finding is what there is on this node beside ourselves. The zero Finding means that the node is ours.
type Finding struct {
	Alive     bool
	Kind      string   // one of the constants, also of leftovers; empty if there is nothing
	Evidence  string   // a sentence: why it is taken for alive, or for dead
	Leftovers []string // what a proxy that is not alive left, each by the name under which the node's tools show it
}

// Finder looks for other proxies. Its zero value is ready for use.
type Finder struct {
	patience, tick time.Duration // zero: the defaults
}

const (
	// kube-proxy looks for its canary every iptables.syncPeriod, 30 s unless configured, then waits up to 5 s for all of them to be gone
	// before it writes its rules again; in ipvs mode it writes them every ipvs.syncPeriod, also 30 s. A proxy that is being
	// restarted has its listeners again in that time too.
	defaultPatience = 40 * time.Second
	defaultTick     = 2 * time.Second
)

// Look says what other proxy there is. It answers at once when one listens or when there are no rules of one; otherwise it disturbs the
// rules in a way that changes nothing for packets and that a living kube-proxy repairs, and watches for 40 s before it calls them
// leftovers. A kube-proxy in nftables mode repairs nothing by itself: without listeners it is recognized only once it changes something.
func (f *Finder) Look(ctx context.Context) (Finding, error) {
	patience, tick := f.patience, f.tick
	if patience == 0 {
		patience, tick = defaultPatience, defaultTick
	}
	before, err := look(ctx)
	if err != nil {
		return Finding{}, err
	}
	found := judge(before)
	if found.Alive || len(found.Leftovers) == 0 {
		return found, nil
	}

	poked, err := poke(ctx, before.chains)
	// The node is left as it was found, also when the caller has no more time.
	defer func() { unpoke(context.WithoutCancel(ctx), poked) }()
	if err != nil {
		return Finding{}, err
	}
	var changes <-chan monitor.Change
	if len(before.tables) > 0 {
		watched, stop := context.WithCancel(ctx)
		defer stop()
		if changes, err = monitor.Watch(watched, slog.Default()); err != nil {
			return Finding{}, err
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for end := time.Now().Add(patience); ; {
		select {
		case <-ctx.Done():
			return Finding{}, ctx.Err()
		case c := <-changes:
			if c.Table == proxyTable && !c.Gone {
				return alive(KubeProxyNFTables, "program %s changed nftables table %s, which only kube-proxy does", c.Program, c.Table), nil
			}
			continue
		case <-ticker.C:
		}
		now, err := look(ctx)
		if err != nil {
			return Finding{}, err
		}
		now.repaired = repaired(poked, now.chains)
		found := judge(now)
		if found.Alive {
			return found, nil
		}
		if time.Now().Before(end) {
			continue
		}
		if found.Kind != "" {
			found.Evidence = fmt.Sprintf("no proxy listens, and in %v nobody repaired the rules", patience)
		}
		return found, nil
	}
}

// Glance is Look without the wait: it disturbs nothing, and takes rules for leftovers whose proxy does not listen.
func (f *Finder) Glance(ctx context.Context) (Finding, error) {
	s, err := look(ctx)
	if err != nil {
		return Finding{}, err
	}
	return judge(s), nil
}

// sight is what is to be seen of proxies on a node at one moment.
type sight struct {
	listeners []listener
	links     []string // of ipvsLink and ciliumLink those that exist
	tables    []string // of kube-proxy in nftables mode: "ip kube-proxy"
	chains    []chains // of kube-proxy in the modes that use iptables
	repaired  string   // what somebody repaired since it was disturbed, in words
}

// chains are those of kube-proxy in one variant and family of iptables.
type chains struct {
	tool
	canary   bool // there is a canary in table mangle
	ours     bool // all but the canaries are those of Steelyard's iptables backend
	services bool // there is a servicesChain that is not ours
	poked    bool // its first rule is the probe
}

const (
	ipvsLink   = "kube-ipvs0"
	ciliumLink = "cilium_host"
)

// judge says what a sight means.
func judge(s sight) Finding {
	var found Finding
	for _, c := range s.chains {
		if c.canary {
			found.Leftovers = append(found.Leftovers, fmt.Sprintf("chain %s in table mangle of %s", canary, c.program))
		}
		if c.services {
			found.Leftovers = append(found.Leftovers, fmt.Sprintf("chain %s in table nat of %s", servicesChain, c.program))
		}
	}
	if len(found.Leftovers) > 0 {
		found.Kind = KubeProxyIPTables
	}
	for _, table := range s.tables {
		found.Leftovers = append(found.Leftovers, "nftables table "+table)
		found.Kind = KubeProxyNFTables
	}
	for _, link := range s.links {
		found.Leftovers = append(found.Leftovers, "interface "+link)
		switch {
		case link == ipvsLink:
			found.Kind = KubeProxyIPVS // its iptables chains only sort packets
		case found.Kind == "":
			found.Kind = Cilium
		}
	}

	cilium := slices.Contains(s.links, ciliumLink)
	for _, l := range s.listeners {
		switch {
		case l.mode != "":
			return alive("kube-proxy ("+l.mode+")", "%s answers to /proxyMode with %q", l.addr, l.mode)
		case l.healthz && found.Kind == "":
			return alive(Unknown, "%s answers to /healthz as service proxies do, but there are no rules of a known one", l.addr)
		case l.healthz:
			return alive(found.Kind, "%s answers to /healthz as service proxies do", l.addr)
		case l.addr.Port() == ciliumPort && cilium:
			// Also with kubeProxyReplacement=false Cilium translates the ClusterIPs that pods connect to.
			return alive(Cilium, "there is an interface %s, and something listens on the port of Cilium's health check, %s", ciliumLink, l.addr)
		}
	}
	if s.repaired != "" {
		return alive(found.Kind, "%s", s.repaired)
	}
	return found
}

func alive(kind, evidence string, args ...any) Finding {
	return Finding{Alive: true, Kind: kind, Evidence: fmt.Sprintf(evidence, args...)}
}

// repaired says in words what was disturbed in before and is as a living kube-proxy would have it in now.
func repaired(poked, now []chains) string {
	for _, p := range poked {
		i := slices.IndexFunc(now, func(c chains) bool { return c.program == p.program })
		if i < 0 {
			continue
		}
		switch c := now[i]; {
		case c.canary:
			return fmt.Sprintf("somebody made chain %s again, in table mangle of %s, after it was removed", canary, c.program)
		case p.poked && c.services && !c.poked:
			return fmt.Sprintf("somebody wrote the rules of chain %s again, in table nat of %s", servicesChain, c.program)
		}
	}
	return ""
}
