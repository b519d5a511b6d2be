package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// The tables in use.
const (
	nat    = "nat"
	filter = "filter"
)

// renderer turns ports into rules of one family. The names of chains, the comments and the rules are kube-proxy's, which people know how
// to read; see https://kubernetes.io/docs/reference/networking/virtual-ips/.
type renderer struct {
	full   bool
	prefix string // of every chain
	mark   string // the bit of packets to masquerade
	family dataplane.Family
	pods   []source // which traffic comes from this node's pods
	host   dataplane.Host
	sets   bool // the kernel has IP sets
	// dropInvalid drops packets that connection tracking finds out of window: it does not translate them, and the client, which knows
	// nothing of the endpoint's address, would answer them with a reset.
	dropInvalid bool
}

// source is a way to match where a packet comes from: "-s 10.244.0.0/16" or "-i cali+".
type source struct{ option, value string }

func newRenderer(mode dataplane.Mode, family dataplane.Family, host dataplane.Host, sets, dropInvalid bool) *renderer {
	r := &renderer{prefix: "STLY", mark: "0x2000", family: family, host: host, sets: sets, dropInvalid: dropInvalid}
	if mode == dataplane.Full {
		r.full, r.prefix, r.mark = true, "KUBE", "0x4000"
	}
	for _, prefix := range host.PodCIDRs {
		if prefix.Addr().Is4() == (family == dataplane.IPv4) {
			r.pods = append(r.pods, source{"-s", prefix.Masked().String()})
		}
	}
	if host.PodInterfaces != "" {
		r.pods = append(r.pods, source{"-i", host.PodInterfaces + "+"})
	}
	return r
}

// names are the chains of a port. They depend on the port's name only.
type names struct {
	r                                      *renderer
	port                                   string // namespace/name:port, as in comments
	key                                    string // what the hashes are of
	cluster, local, external, firewall     string
	anyExternal, anyRestricted, anyCluster bool
}

func (r *renderer) names(p *dataplane.Port) names {
	n := names{r: r, port: p.Name.Service}
	if p.Name.Port != "" {
		n.port += ":" + p.Name.Port
	}
	n.key = n.port + protocol(p.Name.Protocol)
	suffix := hash(n.key)
	n.cluster = r.prefix + "-SVC-" + suffix
	n.local = r.prefix + "-SVL-" + suffix
	n.external = r.prefix + "-EXT-" + suffix
	n.firewall = r.prefix + "-FW-" + suffix
	for _, f := range p.Frontends {
		n.anyCluster = n.anyCluster || f.Kind == dataplane.ClusterIP
		n.anyExternal = n.anyExternal || f.Kind != dataplane.ClusterIP
		n.anyRestricted = n.anyRestricted || f.Kind == dataplane.LoadBalancerIP && p.SourceRanges != nil
	}
	return n
}

func (n *names) endpoint(e netip.AddrPort) string {
	return n.r.prefix + "-SEP-" + hash(n.key+e.String())
}

// set is the name of the IP set that has the clients which are bound to an endpoint.
func (n *names) set(e netip.AddrPort) string { return "STLY-SEP-" + hash(n.key+e.String()) }

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}

func protocol(p dataplane.Protocol) string {
	switch p {
	case dataplane.UDP:
		return "udp"
	case dataplane.SCTP:
		return "sctp"
	}
	return "tcp"
}

func comment(format string, args ...any) string {
	return fmt.Sprintf(`-m comment --comment "`+format+`"`, args...)
}

// only returns the prefix of one address, which is how iptables-save prints it.
func only(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// port adds what a port needs.
func (r *renderer) port(l *layout, p *dataplane.Port) {
	n := r.names(p)
	if len(p.Cluster) > 0 {
		r.endpoints(l, p, &n)
		r.policies(l, p, &n)
	}
	for _, f := range p.Frontends {
		r.frontend(l, p, &n, f)
	}
}

// endpoints adds a chain for each endpoint.
func (r *renderer) endpoints(l *layout, p *dataplane.Port, n *names) {
	all := slices.Concat(p.Cluster, p.Local)
	slices.SortFunc(all, func(a, b dataplane.Endpoint) int { return a.Addr.Compare(b.Addr) })
	all = slices.CompactFunc(all, func(a, b dataplane.Endpoint) bool { return a.Addr == b.Addr })
	proto := protocol(p.Name.Protocol)
	for _, e := range all {
		// A packet that comes back to its sender must not carry the sender's own address.
		rules := []string{fmt.Sprintf("-s %s %s -j %s-MARK-MASQ", only(e.Addr.Addr()), comment("%s", n.port), r.prefix)}
		if r.sticky(p) {
			rules = append(rules, fmt.Sprintf("%s -j SET --add-set %s src --exist --timeout %d", comment("%s", n.port), n.set(e.Addr), seconds(p)))
			l.sets = append(l.sets, n.set(e.Addr))
		}
		rules = append(rules, fmt.Sprintf("-p %s %s -m %s -j DNAT --to-destination %s", proto, comment("%s", n.port), proto, e.Addr))
		l.chain(nat, n.endpoint(e.Addr), rules...)
	}
}

// policies adds the chains that choose among endpoints.
func (r *renderer) policies(l *layout, p *dataplane.Port, n *names) {
	var masquerade []string
	for _, f := range p.Frontends {
		if f.Kind == dataplane.ClusterIP {
			masquerade = append(masquerade, r.masquerade(p, n, f)...)
		}
	}
	if n.anyExternal || n.anyCluster && !p.InternalLocal {
		rules := r.spread(p, n, p.Cluster)
		if !p.InternalLocal {
			rules = slices.Concat(masquerade, rules)
		}
		l.chain(nat, n.cluster, rules...)
	}
	if len(p.Local) > 0 && (n.anyExternal && p.ExternalLocal || n.anyCluster && p.InternalLocal) {
		rules := r.spread(p, n, p.Local)
		if p.InternalLocal {
			rules = slices.Concat(masquerade, rules)
		}
		l.chain(nat, n.local, rules...)
	}
	if !n.anyExternal {
		return
	}
	l.chain(nat, n.external, r.external(p, n)...)
	if n.anyRestricted {
		l.chain(nat, n.firewall, r.firewall(p, n)...)
	}
}

// masquerade returns the rule for traffic to a cluster IP that does not come from a pod of this node: its answers have to come back here.
func (r *renderer) masquerade(p *dataplane.Port, n *names, f dataplane.Frontend) []string {
	to := r.to(p, f, n.port+" cluster IP")
	switch {
	case r.host.MasqueradeAll:
		return []string{fmt.Sprintf("-d %s -j %s-MARK-MASQ", to, r.prefix)}
	case len(r.pods) == 0:
		return nil
	case len(r.pods) > 1:
		return []string{fmt.Sprintf("-d %s -j %s-MARK-OTHERS", to, r.prefix)}
	case r.pods[0].option == "-s":
		return []string{fmt.Sprintf("! -s %s -d %s -j %s-MARK-MASQ", r.pods[0].value, to, r.prefix)}
	}
	address, rest, _ := strings.Cut(to, " ")
	return []string{fmt.Sprintf("-d %s ! -i %s %s -j %s-MARK-MASQ", address, r.pods[0].value, rest, r.prefix)}
}

// external returns the rules for traffic from outside, which pods and the node itself may also send.
func (r *renderer) external(p *dataplane.Port, n *names) []string {
	if !p.ExternalLocal {
		return []string{
			fmt.Sprintf("%s -j %s-MARK-MASQ", comment("masquerade traffic for %s external destinations", n.port), r.prefix),
			"-j " + n.cluster,
		}
	}
	var rules []string
	for _, pods := range r.pods {
		rules = append(rules, fmt.Sprintf("%s %s %s -j %s", pods.option, pods.value, comment("pod traffic for %s external destinations", n.port), n.cluster))
	}
	rules = append(rules,
		fmt.Sprintf("%s -m addrtype --src-type LOCAL -j %s-MARK-MASQ", comment("masquerade LOCAL traffic for %s external destinations", n.port), r.prefix),
		fmt.Sprintf("%s -m addrtype --src-type LOCAL -j %s", comment("route LOCAL traffic for %s external destinations", n.port), n.cluster))
	if len(p.Local) > 0 {
		rules = append(rules, "-j "+n.local)
	}
	return rules
}

// firewall returns the rules that let the source ranges pass. What is left keeps its destination, by which the filter table drops it.
func (r *renderer) firewall(p *dataplane.Port, n *names) []string {
	allowed := p.SourceRanges
	if p.OwnSource {
		for _, f := range p.Frontends {
			if f.Kind == dataplane.LoadBalancerIP {
				allowed = append(slices.Clip(allowed), netip.PrefixFrom(f.Addr, f.Addr.BitLen()))
			}
		}
	}
	var rules []string
	for _, prefix := range allowed {
		if prefix.Bits() == 0 { // printed without -s
			rules = append(rules, fmt.Sprintf("%s -j %s", comment("%s loadbalancer IP", n.port), n.external))
			continue
		}
		rules = append(rules, fmt.Sprintf("-s %s %s -j %s", prefix, comment("%s loadbalancer IP", n.port), n.external))
	}
	return append(rules, comment("other traffic to %s will be dropped by %s-PROXY-FIREWALL", n.port, r.prefix))
}

// spread returns the rules that choose one of some endpoints: the one that the client had, if sessions stick, or any.
func (r *renderer) spread(p *dataplane.Port, n *names, endpoints []dataplane.Endpoint) []string {
	var rules []string
	if r.sticky(p) {
		for _, e := range endpoints {
			rules = append(rules, fmt.Sprintf("%s -m set --match-set %s src -j %s", comment("%s -> %s", n.port, e.Addr), n.set(e.Addr), n.endpoint(e.Addr)))
		}
	}
	for i, e := range endpoints {
		chance := ""
		if left := len(endpoints) - i; left > 1 {
			chance = fmt.Sprintf(" -m statistic --mode random --probability %.11f", probability(left))
		}
		rules = append(rules, fmt.Sprintf("%s%s -j %s", comment("%s -> %s", n.port, e.Addr), chance, n.endpoint(e.Addr)))
	}
	return rules
}

// probability returns 1/n as the kernel holds it: in units of 2^-31.
func probability(n int) float64 { return math.Round((1<<31)/float64(n)) / (1 << 31) }

func (r *renderer) sticky(p *dataplane.Port) bool { return p.Affinity > 0 && r.sets }

func seconds(p *dataplane.Port) int { return max(1, int(p.Affinity.Seconds())) }

// to returns the match for a frontend's address, without the -d.
func (r *renderer) to(p *dataplane.Port, f dataplane.Frontend, text string) string {
	proto := protocol(p.Name.Protocol)
	return fmt.Sprintf("%s -p %s %s -m %s --dport %d", only(f.Addr), proto, comment("%s", text), proto, f.Port)
}

// frontend adds the rules of shared chains that lead to a port, or that say no to its clients.
func (r *renderer) frontend(l *layout, p *dataplane.Port, n *names, f dataplane.Frontend) {
	proto := protocol(p.Name.Protocol)
	local, no := p.ExternalLocal, r.prefix+"-EXTERNAL-SERVICES"
	if f.Kind == dataplane.ClusterIP {
		local, no = p.InternalLocal, r.prefix+"-SERVICES"
	}
	match := func(text string) string {
		if f.Kind == dataplane.NodePort {
			return fmt.Sprintf("-p %s %s -m addrtype --dst-type LOCAL -m %s --dport %d", proto, comment("%s", text), proto, f.Port)
		}
		return "-d " + r.to(p, f, text)
	}
	switch {
	case len(p.Cluster) == 0:
		l.share(filter, no, match(n.port+" has no endpoints")+r.reject())
	case local && len(p.Local) == 0:
		l.share(filter, no, match(n.port+" has no local endpoints")+" -j DROP")
	}
	if len(p.Cluster) == 0 {
		return
	}
	services := r.prefix + "-SERVICES"
	switch f.Kind {
	case dataplane.ClusterIP:
		switch {
		case !p.InternalLocal:
			l.share(nat, services, match(n.port+" cluster IP")+" -j "+n.cluster)
		case len(p.Local) > 0:
			l.share(nat, services, match(n.port+" cluster IP")+" -j "+n.local)
		}
	case dataplane.NodePort:
		l.share(nat, r.prefix+"-NODEPORTS", fmt.Sprintf("-p %s %s -m %s --dport %d -j %s", proto, comment("%s", n.port), proto, f.Port, n.external))
	case dataplane.ExternalIP:
		l.share(nat, services, match(n.port+" external IP")+" -j "+n.external)
	case dataplane.LoadBalancerIP:
		target := n.external
		if p.SourceRanges != nil {
			target = n.firewall
			l.share(filter, r.prefix+"-PROXY-FIREWALL", match(n.port+" traffic not accepted by "+n.firewall)+" -j DROP")
		}
		l.share(nat, services, match(n.port+" loadbalancer IP")+" -j "+target)
	}
}

// healthCheck adds what lets the probes of a load balancer in, whatever the node's firewall says.
func (r *renderer) healthCheck(l *layout, service string, h dataplane.HealthCheck) {
	l.share(filter, r.prefix+"-NODEPORTS", fmt.Sprintf("-p tcp %s -m tcp --dport %d -j ACCEPT", comment("%s health check node port", service), h.Port))
}

func (r *renderer) reject() string {
	if r.family == dataplane.IPv6 {
		return " -j REJECT --reject-with icmp6-port-unreachable"
	}
	return " -j REJECT --reject-with icmp-port-unreachable"
}
