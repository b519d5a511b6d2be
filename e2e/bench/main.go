// Bench measures in the lab what the documentation claims: how long a failover interrupts clients, how long a new Service
// takes to answer, how long each of a thousand Services waits for its address, how long routers wait for routes, and how much memory that
// takes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
)

const pools = `apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: lan}
spec: {addresses: [192.0.2.100-192.0.2.109, 2001:db8:1::100-2001:db8:1::109]}
---
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: lan}
spec: {ipAddressPools: [lan]}
---
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: thousands}
spec: {autoAssign: false, addresses: [198.18.0.0/16]}
---
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: thousands}
spec: {ipAddressPools: [thousands]}
`

func main() {
	cluster.Supervise()
	rounds := flag.Int("rounds", 10, "how often each failover and each new Service is measured")
	burst := flag.Int("services", 1000, "how many Services are created at once")
	only := flag.String("only", "", "measure one thing: new-service, failover, failover-busy, burst, many, bgp-route, bgp-dead-node, bgp-restart or bgp-many")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *burst, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is a lab of three nodes with Steelyard and a workload on every node.
type bench struct {
	*fixture.Cluster
	rounds int
}

func run(ctx context.Context, rounds, burst int, only string) (err error) {
	lab, err := cluster.Up(ctx, cluster.Options{Name: fmt.Sprintf("bench-%d", os.Getpid()), Nodes: 3})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Down()) }()
	c, err := fixture.New(lab)
	if err != nil {
		return err
	}
	if err := errors.Join(c.Install(ctx), c.Apply(ctx, pools), c.Echo(ctx, "echo", "")); err != nil {
		return err
	}
	b := &bench{Cluster: c, rounds: rounds}
	fmt.Printf("conditions: %d CPUs, kernel %s, Kubernetes v1.36 with 3 nodes in network namespaces of one machine, Steelyard in mode full with nftables\n\n", runtime.NumCPU(), kernel())
	for _, m := range []struct {
		name    string
		measure func() error
	}{
		{"new-service", func() error { return b.newService(ctx) }},
		{"failover", func() error { return b.failover(ctx, "a node loses power", nil) }},
		{"failover-busy", func() error { return b.failover(ctx, "a node loses power, all CPUs busy", busy) }},
		{"burst", func() error { return b.burst(ctx, func() error { return b.thousand(ctx, burst) }) }},
		{"many", func() error { return b.burst(ctx, func() error { return b.many(ctx, 10*burst) }) }},
		{"bgp-route", func() error { return b.oneRoute(ctx) }},
		{"bgp-dead-node", func() error { return b.deadNode(ctx) }},
		{"bgp-restart", func() error { return b.speakerRestart(ctx, 2*burst) }},
		{"bgp-many", func() error { return manyRoutes(ctx) }},
	} {
		if only != "" && only != m.name {
			continue
		}
		if err := m.measure(); err != nil {
			return err
		}
	}
	return nil
}

// sample is a series of measurements of one thing.
type sample []time.Duration

// String gives the median, the 99th percentile and the greatest.
func (s sample) String() string {
	sorted := slices.Sorted(slices.Values(s))
	at := func(q float64) time.Duration { return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))] }
	return fmt.Sprintf("median %s, p99 %s, max %s (n=%d)", ms(at(0.5)), ms(at(0.99)), ms(sorted[len(sorted)-1]), len(sorted))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000) }

func kernel() string {
	out, err := exec.Command("uname", "-r").Output()
	if err != nil {
		return "unknown"
	}
	return string(out[:len(out)-1])
}

// busy keeps every CPU busy twice over until the returned function is called. The load runs at the priority of any
// other process of the machine, as a runaway workload would.
func busy() (stop func()) {
	done := make(chan struct{})
	var processes []*exec.Cmd
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started := make(chan error)
		go func() {
			// The signal comes when the thread that started the process ends, so the thread stays.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started <- cmd.Start()
			<-done
		}()
		if err := <-started; err == nil {
			processes = append(processes, cmd)
		}
	}
	return func() {
		for _, p := range processes {
			_ = p.Process.Kill() // it may have ended
			_ = p.Wait()         // it was killed
		}
		close(done)
	}
}
