package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

var nodes = []string{"node-1", "node-2", "node-3"}

// conversation is a connection that stays open while everything under it changes.
type conversation struct {
	net.Conn
	in *bufio.Reader
}

func converse(t *testing.T, from host.Host, address string) *conversation {
	t.Helper()
	c := &conversation{}
	must(t, lab.WaitFor(t.Context(), address+" to answer "+from.Name, func(ctx context.Context) (err error) {
		c.Conn, err = from.Dial(ctx, "tcp", address)
		return err
	}))
	c.in = bufio.NewReader(c)
	t.Cleanup(func() { c.Close() })
	return c
}

// goesOn fails if the connection does not carry a question and its answer.
func (c *conversation) goesOn(t *testing.T, when string) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	if _, err := fmt.Fprintln(c, "who"); err != nil {
		t.Fatalf("%s: the connection to %s broke: %v", when, c.RemoteAddr(), err)
	}
	if _, err := c.in.ReadString('\n'); err != nil {
		t.Fatalf("%s: the connection to %s broke: %v", when, c.RemoteAddr(), err)
	}
}

// rulesOf waits until a node's nftables rules of ours mention some addresses and not others; none at all without addresses to mention.
func rulesOf(t *testing.T, node string, with, without []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must(t, lab.WaitFor(ctx, fmt.Sprintf("the rules of %s to be about %v and not about %v", node, with, without), func(ctx context.Context) error {
		out, err := lab.Host(node).Run(ctx, "nft", "list", "ruleset")
		if err != nil {
			return err
		}
		_, ours, there := strings.Cut(out, "table ip steelyard")
		ours, _, _ = strings.Cut(ours, "\ntable ")
		if there && len(with) == 0 {
			return fmt.Errorf("there is a table of ours")
		}
		for _, a := range with {
			if !strings.Contains(ours, a) {
				return fmt.Errorf("there is nothing about %s", a)
			}
		}
		for _, a := range without {
			if strings.Contains(ours, a) {
				return fmt.Errorf("they are about %s too", a)
			}
		}
		return nil
	}))
}

// TestKubeProxyAndBack moves a living cluster from Steelyard to kube-proxy with Steelyard beside it, and back.
func TestKubeProxyAndBack(t *testing.T) {
	for _, mode := range []string{"iptables", "nftables"} {
		t.Run(mode, func(t *testing.T) {
			f := families[0]
			s := create(t, lbService("moved", f))
			addr := address(t, "moved")
			owner(t, addr)
			inside, balanced := clusterAddress(t, s), port7000(addr)
			ported := net.JoinHostPort(lab.Address("node-3", false).String(), strconv.Itoa(int(s.Spec.Ports[0].NodePort)))
			// Not through the load-balancer address: each rollout of the speakers hands it from node to node, and the next knows nothing of
			// the connections that the last one tracked.
			open := []*conversation{converse(t, lab.Host("node-1"), inside), converse(t, clientHost(), ported)}
			moving := traffic.StartPatient(clientHost(), balanced, 20*time.Millisecond, 10*time.Second)
			streams := []*traffic.Stream{moving}
			for from, to := range map[string]string{"node-1": inside, cluster.Remote: ported} {
				streams = append(streams, traffic.StartPatient(lab.Host(from), to, 20*time.Millisecond, 10*time.Second))
			}
			allIsWell := func(when string) {
				t.Helper()
				for _, c := range open {
					c.goesOn(t, when)
				}
				now := time.Now()
				for _, s := range streams {
					must(t, lab.WaitFor(t.Context(), "traffic "+when, s.Flows(now)))
				}
			}
			allIsWell("at the beginning")

			var proxies []*host.Daemon
			for _, n := range nodes {
				p, err := lab.StartProxy(n, mode)
				must(t, err)
				t.Cleanup(func() { _ = p.Stop(context.Background(), syscall.SIGKILL) })
				proxies = append(proxies, p)
			}
			t.Cleanup(func() { fullAgain(t) })
			for _, n := range nodes {
				rulesOf(t, n, nil, nil)
			}
			must(t, lab.WaitFor(t.Context(), "an Event about it", func(ctx context.Context) error {
				out, err := lab.Kubectl(ctx, "get", "events", "-A", "--field-selector", "reason=OtherProxy,involvedObject.kind=Node", "-o", "name")
				if err == nil && out == "" {
					err = fmt.Errorf("there is none")
				}
				return err
			}))
			allIsWell("with kube-proxy in our place")

			must(t, lab.Install(t.Context(), "dataplane.mode=loadbalancer"))
			for _, n := range nodes {
				rulesOf(t, n, []string{addr.String()}, []string{s.Spec.ClusterIP})
			}
			allIsWell("beside kube-proxy")

			for _, p := range proxies {
				must(t, p.Stop(t.Context(), syscall.SIGKILL))
			}
			// Nobody but us can carry what is new.
			create(t, lbService("later", f, func(s *corev1.Service) { s.Spec.AllocateLoadBalancerNodePorts = new(bool) }))
			later := address(t, "later")
			owner(t, later)
			spreads(t, "the client", fromHost(clientHost()), "tcp", port7000(later))

			fullAgain(t)
			for _, n := range nodes {
				rulesOf(t, n, []string{addr.String(), s.Spec.ClusterIP}, nil)
			}
			allIsWell("with Steelyard alone, among the rules that kube-proxy left")
			var cleaning errgroup.Group // each takes 40 s to be sure that the proxy is dead
			for _, n := range nodes {
				pod, err := lab.Pod(t.Context(), "speaker", n)
				must(t, err)
				cleaning.Go(func() error {
					_, err := lab.Kubectl(t.Context(), "exec", "-n", "steelyard-system", pod, "--", "/speaker", "cleanup", "--kube-proxy")
					return err
				})
			}
			must(t, cleaning.Wait())
			for _, n := range nodes {
				out, err := lab.Host(n).Run(t.Context(), "sh", "-c", "iptables-save; ip6tables-save; nft list tables")
				must(t, err)
				for line := range strings.Lines(out) {
					if strings.Contains(line, "KUBE-SERVICES") || strings.Contains(line, "kube-proxy") {
						t.Errorf("%s still has %s", n, line)
					}
				}
			}
			allIsWell("without those")
			for _, s := range streams[1:] {
				allServed(t, s)
			}
			// The three rollouts move the address, and a connection that is under way just then is reset.
			if r := moving.Stop(); r.Gap > 3*time.Second || r.Served < r.Tried*99/100 {
				t.Errorf("through the address that moves: %s: %v", r, r.Faults)
			} else {
				t.Log(r)
			}
		})
	}
}

func fullAgain(t *testing.T) {
	t.Helper()
	if err := lab.Install(context.Background()); err != nil {
		t.Error(err)
	}
}
