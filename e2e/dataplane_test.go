package e2e

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/e2e/lab/build"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

// rolling is a workload whose pods finish what they have begun before they end, as a rolling update wants it.
const rolling = `apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: rolling}}
  template:
    metadata: {labels: {app: rolling}}
    spec:
      containers:
      - name: echo
        image: %s
        args: [-linger=10s]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
`

// allServed ends a stream whose connections had time enough, and none of which may have failed.
func allServed(t *testing.T, s *traffic.Stream) {
	t.Helper()
	result := s.Stop()
	t.Log(result)
	if result.Served < result.Tried || result.Tried == 0 {
		t.Errorf("%d of %d connections were not served: %v", result.Tried-result.Served, result.Tried, result.Faults)
	}
}

func TestRollingUpdateFailsNoConnection(t *testing.T) {
	apply(t, fmt.Sprintf(rolling, build.ImageName("echo")))
	rolledOut := func() {
		t.Helper()
		_, err := lab.Kubectl(t.Context(), "rollout", "status", "deployment/rolling", "--timeout=120s")
		must(t, err)
	}
	rolledOut()
	s := create(t, lbService("rolling", families[0], dualStack, selecting("rolling")))
	addrs, err := lab.AwaitAddresses(t.Context(), s.Name, 2)
	must(t, err)
	var streams []*traffic.Stream
	for _, a := range addrs {
		owner(t, a)
		reach(t, clientHost(), "tcp", a)
		streams = append(streams, traffic.StartPatient(clientHost(), port7000(a), 20*time.Millisecond, 10*time.Second))
	}
	began := time.Now()
	_, err = lab.Kubectl(t.Context(), "rollout", "restart", "deployment/rolling")
	must(t, err)
	rolledOut()
	for _, s := range streams {
		must(t, lab.WaitFor(t.Context(), "traffic during and after the update", s.Flows(began)))
		allServed(t, s)
	}
}

// carriedBy opens a stream through a node port of one node, so that it shows what that node's rules do.
func carriedBy(t *testing.T, node string, f family) *traffic.Stream {
	t.Helper()
	s := create(t, lbService(strings.ToLower("by-"+node+"-"+f.name), f, nodePort))
	address := net.JoinHostPort(lab.Address(node, f.name == "IPv6").String(), strconv.Itoa(int(s.Spec.Ports[0].NodePort)))
	spreads(t, "the client", fromHost(clientHost()), "tcp", address)
	return traffic.StartPatient(clientHost(), address, 10*time.Millisecond, 10*time.Second)
}

func TestRulesOutliveTheSpeaker(t *testing.T) {
	freshSpeakers(t)
	for _, f := range families {
		stream := carriedBy(t, "node-2", f)
		pod, err := lab.Pod(t.Context(), "speaker", "node-2")
		must(t, err)
		before := restartsOf(t, pod)
		killed := time.Now()
		must(t, host.KillPod(pod, "speaker", syscall.SIGKILL))
		must(t, lab.WaitFor(t.Context(), "the speaker to be ready again", func(context.Context) error {
			if restartsOf(t, pod) == before {
				return fmt.Errorf("it has not been started again")
			}
			return metricAtLeast("node-2", `steelyard_dataplane_sync_duration_seconds_count{kind="full"}`, 1)
		}))
		must(t, lab.WaitFor(t.Context(), "traffic before and after", stream.Flows(killed)))
		allServed(t, stream)
	}
}

func TestRulesHealThemselves(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		stream := carriedBy(t, "node-3", f)
		node := lab.Host("node-3")
		table := map[string]string{"IPv4": "ip", "IPv6": "ip6"}[f.name]
		_, err := node.Run(t.Context(), "nft", "delete", "table", table, "steelyard")
		must(t, err)
		must(t, lab.WaitFor(t.Context(), "the table to be there again", func(ctx context.Context) error {
			_, err := node.Run(ctx, "nft", "list", "table", table, "steelyard")
			return err
		}))
		healed := time.Now()
		must(t, lab.WaitFor(t.Context(), "traffic after the table was deleted", stream.Flows(healed)))
		t.Log(stream.Stop())
	})
}

// TestBackends switches a living cluster from one backend to the other and back.
func TestBackends(t *testing.T) {
	s := create(t, lbService("switched", families[0]))
	addr := address(t, "switched")
	owner(t, addr)
	through := clusterAddress(t, s)
	rules := map[string][]string{
		"nftables": {"nft", "list", "table", "ip", "steelyard"},
		"iptables": {"iptables", "-t", "nat", "-S", "KUBE-SERVICES"},
	}
	stream := carriedBy(t, "node-1", families[0])
	began := time.Now()
	for _, c := range []struct{ to, from string }{{"iptables", "nftables"}, {"nftables", "iptables"}} {
		must(t, lab.Install(t.Context(), "dataplane.backend="+c.to))
		for _, node := range []string{"node-1", "node-2", "node-3"} {
			must(t, lab.WaitFor(t.Context(), fmt.Sprintf("the rules of %s on %s, and only those", c.to, node), func(ctx context.Context) error {
				if _, err := lab.Host(node).Run(ctx, rules[c.from]...); err == nil {
					return fmt.Errorf("those of %s are still there", c.from)
				}
				out, err := lab.Host(node).Run(ctx, rules[c.to]...)
				if err == nil && !strings.Contains(out, s.Spec.ClusterIP) {
					err = fmt.Errorf("they don't have %s", s.Spec.ClusterIP)
				}
				return err
			}))
			spreads(t, node, fromHost(lab.Host(node)), "tcp", through)
		}
		for _, network := range []string{"tcp", "udp"} {
			spreads(t, "the client", fromHost(clientHost()), network, port7000(addr))
		}
		sticky := clusterAddress(t, create(t, lbService("sticky-"+c.to, families[0], clusterIP, func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		})))
		var first traffic.Answer
		must(t, lab.WaitFor(t.Context(), sticky+" to answer", func(ctx context.Context) (err error) {
			first, err = traffic.Ask(ctx, lab.Host("node-1"), "tcp", sticky, time.Second)
			return err
		}))
		for range 15 {
			a, err := traffic.Ask(t.Context(), lab.Host("node-1"), "tcp", sticky, 5*time.Second)
			if err != nil || a.Pod != first.Pod {
				t.Fatalf("%s: %s answered after %s (%v)", c.to, a.Pod, first.Pod, err)
			}
		}
	}
	must(t, lab.WaitFor(t.Context(), "traffic throughout", stream.Flows(began)))
	allServed(t, stream)
}
