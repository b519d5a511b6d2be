package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

// cut pulls a machine's cable; it is plugged in again at the end of the scenario at the latest, and then the whole
// cluster is awaited.
func cut(t *testing.T, machine string) {
	t.Helper()
	must(t, lab.Cut(t.Context(), machine))
	t.Cleanup(func() { mend(t, machine) })
}

func mend(t *testing.T, machine string) {
	t.Helper()
	ctx := context.Background()
	must(t, lab.Mend(ctx, machine))
	_, err := lab.Kubectl(ctx, "wait", "--for=condition=Ready", "node", "--all", "--timeout=90s")
	must(t, err)
	_, err = lab.Kubectl(ctx, "wait", "-n", "steelyard-system", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	must(t, err)
}

func TestNodeLosesPower(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("power", f))
		addr := address(t, "power")
		first := owner(t, addr)
		carriedEverywhere(t, addr)
		stream := traffic.Start(clientHost(), port7000(addr), 20*time.Millisecond)
		must(t, lab.WaitFor(t.Context(), "traffic before the failure", stream.Flows(time.Time{})))
		failure := time.Now()
		cut(t, first)
		ownerAmong(t, addr, others(first)...)
		must(t, lab.WaitFor(t.Context(), "traffic after the failure", stream.Flows(failure)))
		result := stream.Stop()
		t.Logf("%s lost power: %s", first, result)
		// The benchmark measures; this bound only tells a fast detector from memberlist's own timing.
		if result.Gap > 3*time.Second {
			t.Errorf("no new connection for %s", result.Gap)
		}
		// Kubernetes calls the pods on the dead node ready for most of a minute. Nobody is sent to them.
		after := traffic.StartPatient(clientHost(), port7000(addr), 20*time.Millisecond, 5*time.Second)
		must(t, lab.WaitFor(t.Context(), "more traffic", after.Flows(time.Now())))
		allServed(t, after)
		second := owner(t, addr)
		mend(t, first)
		if now := owner(t, addr); now != second {
			t.Errorf("%s came back and took the address from %s; a returning node takes nothing", now, second)
		}
	})
}

func TestSpeakerKilledKeepsItsAddresses(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		freshSpeakers(t)
		create(t, lbService("killed", f))
		addr := address(t, "killed")
		first := owner(t, addr)
		atOnce := crash(t, first)
		if now := owner(t, addr); atOnce && now != first {
			t.Errorf("%s owns the address now; a speaker of %s that comes back at once keeps it", now, first)
		}
		reach(t, clientHost(), "tcp", addr)
	})
}

// freshSpeakers replaces the speakers that have crashed before: the kubelet would let them wait after another crash.
func freshSpeakers(t *testing.T) {
	t.Helper()
	for _, node := range []string{"node-1", "node-2", "node-3"} {
		pod, err := lab.Pod(t.Context(), "speaker", node)
		must(t, err)
		if restartsOf(t, pod) == 0 {
			continue
		}
		_, err = lab.Kubectl(t.Context(), "delete", "pod", "-n", "steelyard-system", pod)
		must(t, err)
	}
	_, err := lab.Kubectl(t.Context(), "rollout", "status", "-n", "steelyard-system", "daemonset/steelyard-speaker", "--timeout=90s")
	must(t, err)
}

// crash kills the speaker of a node and waits until the kubelet has started it again. It tells whether that was soon
// enough for the others to wait for it: they give it five seconds, and the kubelet of a busy machine may take longer.
func crash(t *testing.T, node string) (atOnce bool) {
	t.Helper()
	pod, err := lab.Pod(t.Context(), "speaker", node)
	must(t, err)
	before := restartsOf(t, pod)
	must(t, host.KillPod(pod, "speaker", syscall.SIGKILL))
	killed := time.Now()
	must(t, lab.WaitFor(t.Context(), "the speaker to be started again", func(ctx context.Context) error {
		if now := restartsOf(t, pod); now <= before {
			return fmt.Errorf("%s has restarted %d times", pod, now)
		}
		return nil
	}))
	away := time.Since(killed)
	t.Logf("the speaker of %s was away for %d ms", node, away.Milliseconds())
	return away < 4*time.Second
}

func restartsOf(t *testing.T, pod string) int {
	t.Helper()
	var p corev1.Pod
	must(t, lab.Get(t.Context(), key("steelyard-system", pod), &p))
	if len(p.Status.ContainerStatuses) == 0 {
		return 0
	}
	return int(p.Status.ContainerStatuses[0].RestartCount)
}

func TestAPIServerAway(t *testing.T) {
	create(t, lbService("away", families[0], dualStack))
	addrs, err := lab.AwaitAddresses(t.Context(), "away", 2)
	must(t, err)
	first := owner(t, addrs[0])
	carriedEverywhere(t, addrs...)
	stream := traffic.Start(clientHost(), port7000(addrs[0]), 20*time.Millisecond)
	gone := time.Now()
	cut(t, cluster.Control)
	must(t, lab.WaitFor(t.Context(), "traffic without the API server", stream.Flows(gone.Add(20*time.Second))))
	noGap(t, stream.Stop())
	// A node fails while nobody can tell Kubernetes.
	must(t, lab.Cut(t.Context(), first))
	t.Cleanup(func() { mend(t, first) })
	for _, addr := range addrs {
		ownerAmong(t, addr, others(first)...)
	}
	stream = traffic.Start(clientHost(), port7000(addrs[0]), 20*time.Millisecond)
	must(t, lab.WaitFor(t.Context(), "traffic until a minute is over", func(ctx context.Context) error {
		if left := time.Minute - time.Since(gone); left > 0 {
			return fmt.Errorf("%s left", left)
		}
		return stream.Flows(gone)(ctx)
	}))
	t.Log("with a node dead too:", stream.Stop())
	must(t, lab.Mend(t.Context(), cluster.Control))
	mend(t, first)
	for _, addr := range addrs {
		ownerAmong(t, addr, others(first)...)
	}
}

func TestPartitionHeals(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		// One address per node at least, so that the lonely node has something to lose and something to take.
		var addrs []netip.Addr
		before := map[netip.Addr]string{}
		for i := range 6 {
			name := fmt.Sprintf("split-%d", i)
			create(t, lbService(name, f))
			addrs = append(addrs, address(t, name))
		}
		for _, addr := range addrs {
			before[addr] = owner(t, addr)
		}
		lonely := before[addrs[0]]
		must(t, lab.Isolate(t.Context(), lonely))
		t.Cleanup(func() { mend(t, lonely) })
		for _, addr := range addrs {
			node := ownerAmong(t, addr, others(lonely)...)
			if before[addr] != lonely && node != before[addr] {
				t.Errorf("%s moved from %s to %s though %s was the one that was cut off", addr, before[addr], node, lonely)
			}
			before[addr] = node
		}
		// Long enough that both sides have given each other up.
		must(t, lab.WaitFor(t.Context(), "the lonely node to take all addresses on its side", func(context.Context) error {
			return metricAtLeast(lonely, "steelyard_announced_addresses", len(addrs))
		}))
		must(t, lab.Mend(t.Context(), lonely))
		healed := time.Now()
		var all errgroup.Group
		for _, addr := range addrs {
			all.Go(func() error {
				node, err := lab.AwaitOwner(t.Context(), addr, nil)
				if err == nil && node != before[addr] {
					err = fmt.Errorf("after healing %s is owned by %s; the majority's %s had it", addr, node, before[addr])
				}
				return err
			})
		}
		must(t, all.Wait())
		elapsed := time.Since(healed)
		t.Logf("one owner for each of %d addresses %d ms after healing", len(addrs), elapsed.Milliseconds())
		if elapsed > 4*time.Second {
			t.Errorf("it took %s until every address had one owner", elapsed)
		}
		for _, addr := range addrs {
			reach(t, clientHost(), "tcp", addr)
			got, err := clientHost().Neighbour(t.Context(), addr)
			must(t, err)
			want, err := lab.Host(before[addr]).MAC("eth0")
			must(t, err)
			if got != want {
				t.Errorf("the client's neighbour table says %s for %s; %s is %s", got, addr, before[addr], want)
			}
		}
	})
}
