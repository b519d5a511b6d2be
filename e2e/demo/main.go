// Demo shows Steelyard at work: it starts a real cluster, installs the chart, serves a Service over layer 2 and over BGP, and pulls a node's
// cable under a client that never rests. Each step prints the command that a user would type.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

const pool = `apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: demo}
spec: {addresses: [192.0.2.100-192.0.2.109, 2001:db8:1::100-2001:db8:1::109]}
---
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: demo}
spec: {ipAddressPools: [demo]}
`

const service = `apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: hello}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: echo, port: 7000}]
`

func main() {
	cluster.Supervise()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	start := time.Now()
	say("A Kubernetes cluster of three nodes, a client on their network, all in network namespaces of this machine.")
	command("go run ./e2e/lab up")
	lab, err := cluster.Up(ctx, cluster.Options{Name: fmt.Sprintf("demo-%d", os.Getpid()), Nodes: 3})
	if err != nil {
		return err
	}
	defer func() {
		say("Clean up: every process, mount and namespace goes.")
		command("go run ./e2e/lab down")
		if downErr := lab.Down(); err == nil {
			err = downErr
		}
		if err == nil {
			fmt.Printf("\nDone in %.0f seconds.\n", time.Since(start).Seconds())
		}
	}()
	d := &demo{ctx: ctx}
	if d.Cluster, err = fixture.New(lab); err != nil {
		return err
	}
	for _, act := range []func() error{d.install, d.configure, d.serve, d.path, d.why, d.routers, d.fail} {
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

type demo struct {
	*fixture.Cluster
	ctx   context.Context
	addrs []netip.Addr
}

func say(text string)     { fmt.Printf("\n%s\n", text) }
func command(text string) { fmt.Printf("  $ %s\n", text) }

func output(text string) {
	for line := range strings.Lines(text) {
		fmt.Print("    ", line)
	}
}

// kubectl runs a command and shows both it and what it printed.
func (d *demo) kubectl(args ...string) error {
	command("kubectl " + strings.Join(args, " "))
	out, err := d.Kubectl(d.ctx, args...)
	output(out)
	return err
}

func (d *demo) install() error {
	if err := d.kubectl("get", "nodes", "-o", "wide", "--no-headers", "-o", "custom-columns=NAME:.metadata.name,ADDRESSES:.status.addresses[*].address,VERSION:.status.nodeInfo.kubeletVersion"); err != nil {
		return err
	}
	say("Steelyard comes with one Helm chart: a controller that assigns addresses, a speaker on every node that announces them and carries their traffic. There is no kube-proxy here.")
	command("helm install steelyard . --namespace " + fixture.Namespace + " --create-namespace --wait --set dataplane.mode=full,kubernetes.host=" + cluster.Server.String())
	if err := d.Install(d.ctx); err != nil {
		return err
	}
	return d.kubectl("get", "pods", "-n", fixture.Namespace, "-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,PHASE:.status.phase")
}

func (d *demo) configure() error {
	say("A pool says which addresses Services may have; an advertisement says that they are announced on the local network.")
	command("kubectl apply -f - <<EOF")
	output(pool + "EOF\n")
	return d.Apply(d.ctx, pool)
}

func (d *demo) serve() error {
	say("A workload with a pod on every node, and a Service of type LoadBalancer in front of it, for IPv4 and IPv6.")
	if err := d.Echo(d.ctx, "hello", ""); err != nil {
		return err
	}
	command("kubectl apply -f - <<EOF")
	output(service + "EOF\n")
	created := time.Now()
	if err := d.Apply(d.ctx, service); err != nil {
		return err
	}
	var err error
	if d.addrs, err = d.AwaitAddresses(d.ctx, "hello", 2); err != nil {
		return err
	}
	for _, addr := range d.addrs {
		if err := d.WaitFor(d.ctx, addr.String()+" to answer", func(ctx context.Context) error {
			_, err := traffic.Ask(ctx, d.Host(cluster.Client), "tcp", net.JoinHostPort(addr.String(), "7000"), time.Second)
			return err
		}); err != nil {
			return err
		}
	}
	fmt.Printf("  A client reaches both addresses %.1f seconds after the command.\n", time.Since(created).Seconds())
	if err := d.kubectl("get", "service", "hello"); err != nil {
		return err
	}
	say("The client, on the nodes' network, sees who served: pod, node, and the client's address as the pod saw it.")
	for _, addr := range d.addrs {
		url := "http://" + net.JoinHostPort(addr.String(), "80")
		command("curl " + url)
		out, err := d.Host(cluster.Client).Run(d.ctx, "curl", "-sS", "-m", "5", url)
		if err != nil {
			return err
		}
		output(out)
	}
	return nil
}

func (d *demo) fail() error {
	addr := d.addrs[0]
	owner, err := d.AwaitOwner(d.ctx, addr, nil)
	if err != nil {
		return err
	}
	if err := d.Carried(d.ctx, addr); err != nil {
		return err
	}
	client := d.Host(cluster.Client)
	say(fmt.Sprintf("%s answers for %s: its hardware address is what the client's neighbour table holds.", owner, addr))
	if err := d.neighbour(addr); err != nil {
		return err
	}
	say(fmt.Sprintf("Now %s loses power, under a client that opens a connection every 20 ms.", owner))
	stream := traffic.Start(client, net.JoinHostPort(addr.String(), "7000"), 20*time.Millisecond)
	if err := d.WaitFor(d.ctx, "traffic before the failure", stream.Flows(time.Time{})); err != nil {
		return err
	}
	command("go run ./e2e/lab cut " + owner)
	failure := time.Now()
	if err := d.Cut(d.ctx, owner); err != nil {
		return err
	}
	heir, err := d.AwaitOwner(d.ctx, addr, func(node string) bool { return node != owner })
	if err != nil {
		return err
	}
	if err := d.WaitFor(d.ctx, "traffic after the failure", stream.Flows(failure)); err != nil {
		return err
	}
	result := stream.Stop()
	fmt.Printf("  %s took the address over. The client went without a new connection for %d ms.\n", heir, result.Gap.Milliseconds())
	return d.neighbour(addr)
}

func (d *demo) neighbour(addr netip.Addr) error {
	args := []string{"ip", "neigh", "show", "to", addr.String()}
	command("go run ./e2e/lab exec client " + strings.Join(args, " "))
	out, err := d.Host(cluster.Client).Run(d.ctx, args...)
	output(out)
	return err
}
