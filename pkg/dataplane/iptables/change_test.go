package iptables

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// snapshot is what is in the kernel, without the order of chains, and without the order of rules in those chains where it does not matter.
func snapshot(t *testing.T) string {
	t.Helper()
	lines := strings.Split(saved(t, everything), "\n")
	for i, line := range lines {
		if strings.Contains(line, "this must be the last rule") && i+1 < len(lines) && strings.HasPrefix(lines[i+1], "-A KUBE-SERVICES ") {
			t.Errorf("not the last rule: %s", line)
		}
	}
	ordered := func(line string) bool {
		return strings.Contains(line, "-SVC-") && !strings.HasPrefix(line, "-A KUBE-SERVICES") && !strings.HasPrefix(line, "-A KUBE-NODEPORTS")
	}
	var free, fixed []string
	for _, line := range lines {
		if ordered(line) && strings.HasPrefix(line, "-A") {
			name := strings.Fields(line)[1]
			fixed = append(fixed, name+" "+line)
		} else {
			free = append(free, line)
		}
	}
	slices.Sort(free)
	slices.SortStableFunc(fixed, func(a, b string) int { return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0]) })
	return strings.Join(append(free, fixed...), "\n")
}

// Whatever changes in whatever order: what is left is what a start from nothing would make.
func TestChangesEndWhereAStartDoes(t *testing.T) {
	isolate(t)
	random := rand.New(rand.NewPCG(1, 2))
	all := rich()
	b := newBackend(t, dataplane.Full)
	m := rich()
	sync(t, b, m)
	services := slices.Sorted(maps.Keys(all.Ports))
	for round := range 40 {
		var changed []string
		for range 1 + random.IntN(4) {
			service := services[random.IntN(len(services))]
			changed = append(changed, service)
			delete(m.Ports, service)
			delete(m.HealthChecks, service)
			if random.IntN(4) == 0 {
				continue
			}
			if random.IntN(4) == 0 {
				m.HealthChecks[service] = dataplane.HealthCheck{Port: uint16(32000 + slices.Index(services, service))}
			}
			for _, p := range all.Ports[service] {
				next := *p
				switch random.IntN(6) {
				case 0:
					next.Cluster, next.Local = nil, nil
				case 1:
					next.Cluster, next.Local = p.Cluster[:min(1, len(p.Cluster))], nil
				case 2:
					next.ExternalLocal = !p.ExternalLocal
				case 3:
					next.Frontends = p.Frontends[:1]
				case 4:
					next.Affinity = 1e9 - p.Affinity/3600 // on and off
				}
				m.Ports[service] = append(m.Ports[service], &next)
			}
		}
		slices.Sort(changed)
		sync(t, b, m, slices.Compact(changed)...)
		if round%10 != 9 {
			continue
		}
		got := snapshot(t)
		if err := newBackend(t, dataplane.Full).Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		b = newBackend(t, dataplane.Full)
		sync(t, b, m)
		if want := snapshot(t); got != want {
			t.Fatalf("round %d: differences lead to\n%s\na start to\n%s", round, got, want)
		}
	}
}

// Rules of others stay, and stay in order; what others destroyed is found and mended.
func TestForeignHands(t *testing.T) {
	isolate(t)
	foreign := `
		iptables -t nat -A PREROUTING -p tcp --dport 7001 -j RETURN
		iptables -t nat -A PREROUTING -p tcp --dport 7002 -j RETURN
		iptables -t nat -N DOCKER
		iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE
		iptables -P FORWARD DROP
		iptables -A FORWARD -p tcp --dport 7003 -j ACCEPT
		iptables -N KUBE-FIREWALL
		iptables -N KUBE-KUBELET-CANARY
		iptables -A KUBE-FIREWALL -p tcp --dport 7004 -j DROP
		iptables -I INPUT -j KUBE-FIREWALL
		iptables -t mangle -N KUBE-IPTABLES-HINT`
	command(t, foreign)
	before := saved(t, everything)
	m := rich()
	b := newBackend(t, dataplane.Full)
	sync(t, b, m)
	good := saved(t, everything)
	intact := func(name string, want bool) {
		t.Helper()
		if err := b.Intact(t.Context()); (err == nil) != want {
			t.Errorf("%s: Intact returns %v", name, err)
		}
	}
	intact("after a start", true)
	for _, harm := range []string{
		"iptables -t nat -D PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES",
		"ip6tables -t nat -F; ip6tables -t nat -X",
		"iptables -D FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD; iptables -F KUBE-FORWARD; iptables -X KUBE-FORWARD",
	} {
		command(t, harm)
		intact(harm, false)
		sync(t, b, m)
		intact("after a Sync", true)
	}
	for line := range strings.Lines(good) {
		if !strings.Contains(saved(t, everything), line) {
			t.Errorf("not mended: %s", line)
		}
	}
	if err := b.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	var after []string
	for line := range strings.Lines(saved(t, everything)) {
		// With a kubelet, KUBE-FIREWALL is its own.
		if !strings.Contains(line, "block incoming localnet connections") && line != "-A OUTPUT -j KUBE-FIREWALL\n" {
			after = append(after, line)
		}
	}
	for line := range strings.Lines(before) {
		if !slices.Contains(after, line) {
			t.Errorf("lost: %s", line)
		}
	}
	for _, line := range after {
		if strings.Contains(line, "-A ") && !strings.Contains(before, line) {
			t.Errorf("left behind: %s", line)
		}
	}
}

// Beside another proxy the first to translate wins, and so it stays.
func TestBeforeKubeProxy(t *testing.T) {
	isolate(t)
	p := nginx("10.244.3.9:80")
	p.Frontends = []dataplane.Frontend{{Kind: dataplane.LoadBalancerIP, Addr: p.Frontends[0].Addr, Port: 80}}
	m := model(p)
	b := newBackend(t, dataplane.LoadBalancer)
	command(t, "iptables -t nat -N KUBE-SERVICES; iptables -t nat -A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES")
	first := func() string {
		return strings.SplitN(command(t, "iptables -t nat -S PREROUTING"), "\n", 3)[1]
	}
	for range 2 {
		sync(t, b, m)
		if got := first(); !strings.HasSuffix(got, "-j STLY-SERVICES") {
			t.Errorf("the first rule is %s", got)
		}
		if err := b.Intact(t.Context()); err != nil {
			t.Error(err)
		}
		command(t, "iptables -t nat -I PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES")
		if b.Intact(t.Context()) == nil {
			t.Error("kube-proxy's rule in front of ours is not found")
		}
	}
	if got := strings.Count(command(t, "iptables -t nat -S PREROUTING"), "-j STLY-SERVICES"); got != 1 {
		t.Errorf("there are %d jumps", got)
	}
}

// A change of the mode leaves nothing of the other one, but never takes what kube-proxy lives from.
func TestModes(t *testing.T) {
	for _, kubeProxy := range []bool{false, true} {
		t.Run(fmt.Sprintf("kube-proxy %v", kubeProxy), func(t *testing.T) {
			isolate(t)
			m := model(nginx("10.244.3.9:80"))
			sync(t, newBackend(t, dataplane.Full), m)
			if kubeProxy {
				command(t, "iptables -t nat -N KUBE-PROXY-CANARY")
			}
			sync(t, newBackend(t, dataplane.LoadBalancer), model())
			now := saved(t, everything)
			if strings.Contains(now, "KUBE-SVC-") != kubeProxy {
				t.Errorf("in mode loadbalancer there is\n%s", now)
			}
			if strings.Contains(now, owner) {
				t.Errorf("%s is still there", owner)
			}
			b := newBackend(t, dataplane.Full)
			sync(t, b, m)
			if now := saved(t, everything); strings.Contains(strings.ReplaceAll(now, owner, ""), "STLY-") || strings.Contains(now, canary) {
				t.Errorf("in mode full there is\n%s", now)
			}
			if err := b.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if now := saved(t, everything); strings.Contains(now, "KUBE-") || strings.Contains(now, "STLY-") {
				t.Errorf("after Remove there is\n%s", now)
			}
		})
	}
}
