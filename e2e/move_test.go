package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

const excludeLabel = "node.kubernetes.io/exclude-from-external-load-balancers"

// label sets labels on a node ("key=value", or "key-" to remove one) until the scenario ends.
func label(t *testing.T, node, key, value string) {
	t.Helper()
	_, err := lab.Kubectl(t.Context(), "label", "node", node, "--overwrite", key+"="+value)
	must(t, err)
	t.Cleanup(func() { unlabel(t, node, key) })
}

func unlabel(t *testing.T, node, key string) {
	t.Helper()
	_, err := lab.Kubectl(context.Background(), "label", "node", node, key+"-")
	must(t, err)
}

// noGap demands that no 200 ms passed without a new connection, of which the client begins one every 20 ms. It counts
// connections, because on a busy machine the client itself may be late.
func noGap(t *testing.T, result traffic.Result) {
	t.Helper()
	if result.Lost > 10 {
		t.Errorf("%d connections were lost in a row, in %s; want at most 10 (%v)", result.Lost, result.Gap, result.Faults)
	}
}

func TestExclusionLabelMovesAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("exclude", f))
		addr := address(t, "exclude")
		first := owner(t, addr)
		carriedEverywhere(t, addr)
		stream := traffic.Start(clientHost(), port7000(addr), 20*time.Millisecond)
		label(t, first, excludeLabel, "")
		second := ownerAmong(t, addr, others(first)...)
		unlabel(t, first, excludeLabel)
		label(t, second, excludeLabel, "")
		third := ownerAmong(t, addr, others(second)...)
		label(t, third, excludeLabel, "")
		ownerAmong(t, addr, others(second)...)
		result := stream.Stop()
		t.Log(result)
		noGap(t, result)
	})
}

func TestExcludedEverywhereIsWithdrawn(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("nowhere", f))
		addr := address(t, "nowhere")
		owner(t, addr)
		for i := 1; i <= lab.Nodes; i++ {
			label(t, cluster.NodeName(i), excludeLabel, "")
		}
		must(t, lab.AwaitNoOwner(t.Context(), addr))
		unlabel(t, "node-2", excludeLabel)
		ownerAmong(t, addr, "node-2")
		reach(t, clientHost(), "tcp", addr)
	})
}

// advertised is a pool of its own for one scenario with one address of each family, and an advertisement of it with
// this specification.
func advertised(name string, number int, second bool, spec string) string {
	net4, net6 := "192.0.2", "2001:db8:1:"
	if second {
		net4, net6 = "203.0.113", "2001:db8:3:"
	}
	return fmt.Sprintf(`
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: %[1]s}
spec: {autoAssign: false, addresses: [%[2]s.%[4]d/32, "%[3]s:%[4]d/128"]}
---
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: %[1]s}
spec: {ipAddressPools: [%[1]s]%[5]s}
`, name, net4, net6, number, spec)
}

func TestNodeSelectors(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		label(t, "node-1", "rack", "a")
		label(t, "node-3", "rack", "b")
		apply(t, advertised("racks", 130, false, `, nodeSelectors: [{matchLabels: {rack: b}}]`))
		create(t, lbService("racks", f, fromPool("racks")))
		addr := address(t, "racks")
		ownerAmong(t, addr, "node-3")
		must(t, lab.Apply(t.Context(), advertised("racks", 130, false, `, nodeSelectors: [{matchLabels: {rack: a}}]`)))
		ownerAmong(t, addr, "node-1")
		must(t, lab.Apply(t.Context(), advertised("racks", 130, false, `, nodeSelectors: [{matchLabels: {rack: none}}]`)))
		must(t, lab.AwaitNoOwner(t.Context(), addr))
		label(t, "node-2", "rack", "none")
		ownerAmong(t, addr, "node-2")
		reach(t, clientHost(), "tcp", addr)
	})
}

func TestPreferredNodes(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, advertised("preferred", 131, false,
			`, preferredNodeSelectors: [{weight: 100, preference: {matchLabels: {kubernetes.io/hostname: node-3}}}, {weight: 10, preference: {matchLabels: {kubernetes.io/hostname: node-2}}}]`))
		create(t, lbService("preferred", f, fromPool("preferred")))
		addr := address(t, "preferred")
		ownerAmong(t, addr, "node-3")
		label(t, "node-3", excludeLabel, "")
		ownerAmong(t, addr, "node-2")
		unlabel(t, "node-3", excludeLabel)
		ownerAmong(t, addr, "node-3")
	})
}

// On the second LAN only eth1 is heard, so an address of it is answered only while the advertisement names eth1 or
// nothing.
func TestInterfaceSelectors(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, advertised("ports", 132, true, `, interfaces: [eth1]`))
		create(t, lbService("ports", f, fromPool("ports")))
		addr := address(t, "ports")
		owner(t, addr)
		reach(t, clientHost(), "tcp", addr)
		if macs, err := clientHost().WhoHas(addr, "eth0", 250*time.Millisecond); err != nil || len(macs) > 0 {
			t.Errorf("on eth0, which is not selected, %v answer (%v)", macs, err)
		}
		must(t, lab.Apply(t.Context(), advertised("ports", 132, true, `, interfaces: [eth0]`)))
		must(t, lab.AwaitNoOwner(t.Context(), addr))
		must(t, lab.Apply(t.Context(), advertised("ports", 132, true, `, interfaces: [eth0, eth1]`)))
		owner(t, addr)
		must(t, lab.Apply(t.Context(), advertised("ports", 132, true, `, interfaces: [missing0]`)))
		must(t, lab.AwaitNoOwner(t.Context(), addr))
	})
}

func TestServiceSelectors(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, advertised("public", 133, false, `, serviceSelectors: [{matchLabels: {public: "yes"}}]`))
		s := create(t, lbService("public", f, fromPool("public")))
		addr := address(t, s.Name)
		must(t, lab.AwaitNoOwner(t.Context(), addr))
		_, err := lab.Kubectl(t.Context(), "label", "service", s.Name, "public=yes")
		must(t, err)
		owner(t, addr)
		reach(t, clientHost(), "tcp", addr)
	})
}

// rollOut replaces all speakers, one after the other.
func rollOut(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"restart", "daemonset/steelyard-speaker"}, {"status", "daemonset/steelyard-speaker", "--timeout=180s"}} {
		_, err := lab.Kubectl(t.Context(), append([]string{"rollout", "-n", "steelyard-system"}, args...)...)
		must(t, err)
	}
}

func TestRolloutLeavesNoGap(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("rollout", f))
		addr := address(t, "rollout")
		owner(t, addr)
		carriedEverywhere(t, addr)
		stream := traffic.Start(clientHost(), port7000(addr), 20*time.Millisecond)
		rollOut(t)
		owner(t, addr)
		result := stream.Stop()
		t.Log(result)
		noGap(t, result)
	})
}
