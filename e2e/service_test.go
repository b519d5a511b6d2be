package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

func clusterIP(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }
func nodePort(s *corev1.Service)  { s.Spec.Type = corev1.ServiceTypeNodePort }

// podsOf lists the pods of a workload.
func podsOf(t *testing.T, app string) []corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	must(t, lab.List(t.Context(), &pods, client.InNamespace("default"), client.MatchingLabels{"app": app}))
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

func podOn(t *testing.T, app, node string) corev1.Pod {
	t.Helper()
	for _, p := range podsOf(t, app) {
		if p.Spec.NodeName == node {
			return p
		}
	}
	t.Fatalf("no pod of %s runs on %s", app, node)
	return corev1.Pod{}
}

// addressOf returns a pod's address of a family.
func addressOf(t *testing.T, p corev1.Pod, f family) netip.Addr {
	t.Helper()
	for _, ip := range p.Status.PodIPs {
		if a := netip.MustParseAddr(ip.IP); f.is(a) {
			return a
		}
	}
	t.Fatalf("pod %s has no %s address", p.Name, f.name)
	return netip.Addr{}
}

// asker is somebody who asks an echo server.
type asker func(ctx context.Context, network, address string) (traffic.Answer, error)

func fromHost(h host.Host) asker {
	return func(ctx context.Context, network, address string) (traffic.Answer, error) {
		return traffic.Ask(ctx, h, network, address, time.Second)
	}
}

func fromPod(p corev1.Pod) asker {
	return func(ctx context.Context, network, address string) (traffic.Answer, error) {
		out, err := lab.Kubectl(ctx, "exec", p.Name, "--", "/echo", "ask", network, address)
		if err != nil {
			return traffic.Answer{}, err
		}
		return traffic.Parse(out)
	}
}

// spreads waits until all pods of the echo workload have answered.
func spreads(t *testing.T, who string, ask asker, network, address string) {
	t.Helper()
	answered := map[string]bool{}
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("all pods to answer %s at %s %s", who, network, address), func(ctx context.Context) error {
		a, err := ask(ctx, network, address)
		if err != nil {
			return err
		}
		answered[a.Pod] = true
		if len(answered) < lab.Nodes {
			return fmt.Errorf("%d of %d have", len(answered), lab.Nodes)
		}
		return nil
	}))
}

func clusterAddress(t *testing.T, s *corev1.Service) string {
	t.Helper()
	must(t, lab.Get(t.Context(), keyOf(s), s))
	return net.JoinHostPort(s.Spec.ClusterIP, "7000")
}

func TestClusterIP(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		address := clusterAddress(t, create(t, lbService("cluster", f, clusterIP)))
		pod := podOn(t, "echo", "node-1")
		for _, network := range []string{"tcp", "udp"} {
			spreads(t, "node-1", fromHost(lab.Host("node-1")), network, address)
			spreads(t, "a pod", fromPod(pod), network, address)
		}
		// A server sees the pod that asks, unless that is itself.
		must(t, lab.WaitFor(t.Context(), "another pod to answer", func(ctx context.Context) error {
			a, err := fromPod(pod)(ctx, "tcp", address)
			if err != nil || a.Pod == pod.Name {
				return fmt.Errorf("%v, %v", a, err)
			}
			if want := addressOf(t, pod, f).String(); a.Client != want {
				t.Errorf("%s saw %s, want the pod's own address %s", a.Pod, a.Client, want)
			}
			return nil
		}))
	})
}

func TestNodePort(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		must(t, lab.Echo(t.Context(), "pinned", "node-2"))
		s := create(t, lbService("ported", f, nodePort))
		at := func(node string, i int) string {
			return net.JoinHostPort(lab.Address(node, f.name == "IPv6").String(), strconv.Itoa(int(s.Spec.Ports[i].NodePort)))
		}
		for i, network := range []string{"tcp", "udp"} {
			for _, from := range []string{cluster.Client, cluster.Remote, "node-1"} {
				spreads(t, from, fromHost(lab.Host(from)), network, at("node-3", i))
			}
		}
		update(t, "ported", selecting("pinned"))
		update(t, "ported", local)
		client := lab.Address(cluster.Client, f.name == "IPv6").String()
		must(t, lab.WaitFor(t.Context(), "node-2 to show the client's address", func(ctx context.Context) error {
			a, err := traffic.Ask(ctx, clientHost(), "tcp", at("node-2", 0), time.Second)
			if err == nil && a.Client != client {
				err = fmt.Errorf("%s saw %s", a.Pod, a.Client)
			}
			return err
		}))
		if a, err := traffic.Ask(t.Context(), clientHost(), "tcp", at("node-1", 0), time.Second); err == nil {
			t.Errorf("%s answered on a node without an endpoint, and the policy is Local", a.Pod)
		}
	})
}

func TestSessionAffinity(t *testing.T) {
	sticky := func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("sticky", f, sticky))
		addr := address(t, "sticky")
		owner(t, addr)
		first := reach(t, clientHost(), "tcp", addr)
		for range 30 {
			if a := reach(t, clientHost(), "tcp", addr); a.Pod != first.Pod {
				t.Fatalf("%s answered after %s", a.Pod, first.Pod)
			}
		}
		update(t, "sticky", func(s *corev1.Service) {
			s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
		})
		spreads(t, "the client", fromHost(clientHost()), "tcp", port7000(addr))
	})
}

func TestSourceRanges(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		only := func(machine string) func(*corev1.Service) {
			return func(s *corev1.Service) {
				a := lab.Address(machine, f.name == "IPv6")
				s.Spec.LoadBalancerSourceRanges = []string{netip.PrefixFrom(a, a.BitLen()).String()}
			}
		}
		create(t, lbService("ranges", f, only(cluster.Client)))
		addr := address(t, "ranges")
		owner(t, addr)
		allowed := func(yes, no string) {
			t.Helper()
			must(t, lab.WaitFor(t.Context(), yes+" to be let in, and "+no+" kept out", func(ctx context.Context) error {
				if _, err := traffic.Ask(ctx, lab.Host(yes), "tcp", port7000(addr), time.Second); err != nil {
					return fmt.Errorf("%s: %w", yes, err)
				}
				if _, err := traffic.Ask(ctx, lab.Host(no), "tcp", port7000(addr), time.Second); err == nil {
					return fmt.Errorf("%s is let in", no)
				}
				return nil
			}))
		}
		allowed(cluster.Client, cluster.Remote)
		update(t, "ranges", only(cluster.Remote))
		allowed(cluster.Remote, cluster.Client)
	})
}
