// Package iptables is the dataplane's backend for machines without nftables: it keeps the rules that kube-proxy's iptables mode would,
// under kube-proxy's names in full mode and under names of its own beside another proxy.
package iptables

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Config is what New needs.
type Config struct {
	Mode dataplane.Mode // LoadBalancer or Full
	Log  *slog.Logger
	// Sysctls is where the kernel's settings can be written; empty for /proc/sys.
	Sysctls string
}

// Backend keeps iptables rules. It implements dataplane.Backend.
type Backend struct {
	mode     dataplane.Mode
	log      *slog.Logger
	sysctls  string
	families []family

	// What the kernel has, if known is true. Ports do not change, so that the rules that they have can be rendered again when they go.
	known   bool
	host    dataplane.Host
	ports   map[string][]*dataplane.Port
	checks  map[string]dataplane.HealthCheck
	retired []string // IP sets that could not be deleted yet
}

var _ dataplane.Backend = (*Backend)(nil)

// New finds the variant of iptables that this node uses and tries it. It fails if iptables does not work for IPv4; without a working
// ip6tables IPv6 is left out, and the log says so.
func New(config Config) (*Backend, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b := &Backend{mode: config.Mode, log: config.Log, sysctls: cmp.Or(config.Sysctls, "/proc/sys")}
	v := variant(ctx)
	for _, f := range []family{
		{Family: dataplane.IPv4, commands: commands{"ip", v}},
		{Family: dataplane.IPv6, commands: commands{"ip6", v}},
	} {
		if err := f.restore(ctx, "*nat\n:STLY-PROBE - [0:0]\n-X STLY-PROBE\nCOMMIT\n"); err != nil {
			if f.Family == dataplane.IPv4 {
				return nil, fmt.Errorf("iptables does not work on this node; it needs iptables-restore in the image, the capabilities NET_ADMIN and "+
					"NET_RAW, and the kernel's iptable_nat or nft_compat; --dataplane-backend=nftables may be the way out: %w", err)
			}
			b.log.Warn("ip6tables does not work on this node: IPv6 Services are not carried", "error", err)
			continue
		}
		if err := b.probeSets(ctx, f); err != nil {
			b.log.Warn("the kernel has no IP sets: Services with session affinity are carried without it; load the modules ip_set_hash_ip and xt_set",
				"family", f.Family, "error", err)
		} else {
			f.sets = true
		}
		b.families = append(b.families, f)
	}
	// What was killed for want of time says nothing about what the node can do.
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("trying iptables on this node took longer than a minute; the node is too busy, or another program holds the xtables lock: %w", err)
	}
	b.log.Info("keeping rules with iptables", "program", b.families[0].name("-restore"))
	return b, nil
}

// probeSets tries a rule with an IP set.
func (b *Backend) probeSets(ctx context.Context, f family) error {
	name := fmt.Sprintf("%sPROBE-%d", setPrefix, f.Family)
	if err := makeSet(name, f.Family); err != nil {
		return err
	}
	b.retired = append(b.retired, name)
	return f.restore(ctx, fmt.Sprintf("*nat\n:STLY-PROBE - [0:0]\n-A STLY-PROBE -m set --match-set %s src -j SET --add-set %s src --exist --timeout 1\n"+
		"-F STLY-PROBE\n-X STLY-PROBE\nCOMMIT\n", name, name))
}

// Sync implements dataplane.Backend.
func (b *Backend) Sync(ctx context.Context, m *dataplane.Model, changed []string) error {
	sync := b.syncChanged
	if changed == nil || !b.known || !sameHost(b.host, m.Host) {
		sync = func(ctx context.Context, m *dataplane.Model, _ []string) error { return b.syncAll(ctx, m) }
	}
	err := sync(ctx, m, changed)
	b.known = err == nil
	return err
}

func sameHost(a, b dataplane.Host) bool {
	return slices.Equal(a.PodCIDRs, b.PodCIDRs) && a.PodInterfaces == b.PodInterfaces && a.MasqueradeAll == b.MasqueradeAll &&
		(a.NodePortAddrs == nil) == (b.NodePortAddrs == nil) && slices.Equal(a.NodePortAddrs, b.NodePortAddrs) &&
		a.LocalhostNodePorts == b.LocalhostNodePorts
}

// syncAll compares what is in the kernel with the whole model.
func (b *Backend) syncAll(ctx context.Context, m *dataplane.Model) error {
	sets := map[string]bool{}
	for _, f := range b.families {
		r := b.renderer(f, m.Host)
		want := newLayout()
		r.skeleton(want)
		for _, service := range slices.Sorted(maps.Keys(m.Ports)) {
			for _, p := range m.Ports[service] {
				if p.Family == f.Family {
					r.port(want, p)
				}
			}
		}
		for _, service := range slices.Sorted(maps.Keys(m.HealthChecks)) {
			if r.full {
				r.healthCheck(want, service, m.HealthChecks[service])
			}
		}
		for _, name := range want.sets {
			sets[name] = true
			if err := makeSet(name, f.Family); err != nil {
				return err
			}
		}
		rules, err := f.read(ctx)
		if err != nil {
			return err
		}
		if err := f.apply(ctx, r.compare(rules, want)); err != nil {
			return err
		}
		if r.guarded() {
			b.routeLocalnet("1")
		}
	}
	if slices.ContainsFunc(b.families, func(f family) bool { return f.sets }) {
		names, err := listSets()
		if err != nil {
			return err
		}
		if b.retired, err = retireSets(slices.DeleteFunc(names, func(name string) bool { return sets[name] })); err != nil {
			return err
		}
	}
	b.host = m.Host
	b.host.PodCIDRs, b.host.NodePortAddrs = slices.Clone(m.Host.PodCIDRs), slices.Clone(m.Host.NodePortAddrs)
	b.checks = maps.Clone(m.HealthChecks)
	b.ports = make(map[string][]*dataplane.Port, len(m.Ports))
	for service, ports := range m.Ports {
		b.ports[service] = slices.Clone(ports)
	}
	return nil
}

// syncChanged replaces the rules of some Services. It does not look at the kernel.
func (b *Backend) syncChanged(ctx context.Context, m *dataplane.Model, changed []string) error {
	retired := b.retired
	for _, f := range b.families {
		r := b.renderer(f, b.host)
		have, want := newLayout(), newLayout()
		for _, service := range changed {
			for _, p := range b.ports[service] {
				if p.Family == f.Family && !slices.Contains(m.Ports[service], p) {
					r.port(have, p)
				}
			}
			for _, p := range m.Ports[service] {
				if p.Family == f.Family && !slices.Contains(b.ports[service], p) {
					r.port(want, p)
				}
			}
			if h, is := b.checks[service]; is && r.full {
				r.healthCheck(have, service, h)
			}
			if h, is := m.HealthChecks[service]; is && r.full {
				r.healthCheck(want, service, h)
			}
		}
		for _, name := range want.sets {
			if err := makeSet(name, f.Family); err != nil {
				return err
			}
		}
		if err := f.apply(ctx, between(have, want)); err != nil {
			return err
		}
		retired = append(retired, have.sets...)
		retired = slices.DeleteFunc(retired, func(name string) bool { return slices.Contains(want.sets, name) })
	}
	var err error
	if b.retired, err = retireSets(retired); err != nil {
		return err
	}
	for _, service := range changed {
		b.ports[service] = slices.Clone(m.Ports[service])
		if len(m.Ports[service]) == 0 {
			delete(b.ports, service)
		}
		delete(b.checks, service)
		if h, is := m.HealthChecks[service]; is {
			if b.checks == nil {
				b.checks = map[string]dataplane.HealthCheck{}
			}
			b.checks[service] = h
		}
	}
	return nil
}

func (b *Backend) renderer(f family, host dataplane.Host) *renderer {
	liberal, _ := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
	return newRenderer(b.mode, f.Family, host, f.sets, string(bytes.TrimSpace(liberal)) != "1")
}

// read returns what is in both tables.
func (f family) read(ctx context.Context) (map[place][]string, error) {
	rules := map[place][]string{}
	for _, table := range []string{nat, filter} {
		some, err := f.save(ctx, table)
		if err != nil {
			return nil, err
		}
		maps.Copy(rules, some)
	}
	return rules, nil
}

func (f family) apply(ctx context.Context, p *plan) error {
	for _, input := range p.inputs() {
		if err := f.restore(ctx, input); err != nil {
			return err
		}
	}
	return nil
}

// routeLocalnet says whether the node answers for the IPv4 loopback network on its other interfaces too, which node ports on it need.
func (b *Backend) routeLocalnet(value string) {
	path := filepath.Join(b.sysctls, "net/ipv4/conf/all/route_localnet")
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == value {
		return
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		b.log.Warn("node ports at 127.0.0.1: set the sysctl net.ipv4.conf.all.route_localnet on the node", "value", value, "error", err)
	}
}

// Intact implements dataplane.Backend.
func (b *Backend) Intact(ctx context.Context) error {
	for _, f := range b.families {
		r := b.renderer(f, b.host)
		rules := map[place][]string{}
		for _, j := range r.jumps() {
			if _, is := rules[j.place]; is {
				continue
			}
			some, err := f.list(ctx, j.place)
			if err != nil {
				return err
			}
			rules[j.place] = some[j.place]
		}
		if wrong := r.misplaced(rules); len(wrong) > 0 {
			return fmt.Errorf("%s: table %s, chain %s: the rule %q is missing or not where it has to be", f.name(""), wrong[0].table, wrong[0].chain, wrong[0].rule)
		}
	}
	return nil
}

// Remove implements dataplane.Backend.
func (b *Backend) Remove(ctx context.Context) error {
	b.known = false
	for _, f := range b.families {
		rules, err := f.read(ctx)
		if err != nil {
			return err
		}
		p := leave(rules)
		if slices.Contains(p.stale, place{filter, kubeletFirewall}) { // the guard goes, and so must what it guards
			b.routeLocalnet("0")
		}
		if err := f.apply(ctx, p); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(b.families, func(f family) bool { return f.sets }) {
		return removeSets(ctx)
	}
	return nil
}
