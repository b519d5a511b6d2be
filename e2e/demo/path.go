package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

// traced are the commands with which somebody would follow the first packet of each connection to an address through a node's rules.
const traced = `nft add table ip demo
nft add chain ip demo trace '{ type filter hook prerouting priority -400; }'
nft add rule ip demo trace ip daddr %s tcp dport 7000 tcp flags syn meta nftrace set 1
nft monitor trace`

// tracedRule is a rule of ours that a packet met, with the chain that it is in.
var tracedRule = regexp.MustCompile(`ip steelyard (\S+) rule (.*)`)

// path shows the way of one packet through the node that it arrives at: the rules that it met, the pod that answered.
func (d *demo) path() error {
	addr := d.addrs[0]
	owner, err := d.AwaitOwner(d.ctx, addr, nil)
	if err != nil {
		return err
	}
	node := d.Host(owner)
	say(fmt.Sprintf("The path of a packet: it arrives at %s, which answers for %s. These are the rules that it meets there.", owner, addr))
	ctx, stop := context.WithCancel(d.ctx)
	defer stop()
	var seen bytes.Buffer
	script := fmt.Sprintf(traced, addr)
	for line := range strings.Lines(script) {
		command("go run ./e2e/lab exec " + owner + " " + strings.TrimSpace(line))
	}
	monitor := node.Command(ctx, "sh", "-ec", script)
	monitor.Stdout, monitor.Stderr = &seen, &seen
	if err := monitor.Start(); err != nil {
		return err
	}
	defer func() { _, _ = node.Run(context.WithoutCancel(d.ctx), "nft", "delete", "table", "ip", "demo") }()
	if err := d.WaitFor(ctx, "the trace to begin", func(ctx context.Context) error {
		_, err := node.Run(ctx, "sh", "-c", "nft list chain ip demo trace | grep -q nftrace")
		return err
	}); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // the monitor says nothing when it is ready
	answer, err := traffic.Ask(ctx, d.Host(cluster.Client), "tcp", net.JoinHostPort(addr.String(), "7000"), 3*time.Second)
	if err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	_ = monitor.Wait() // it was killed
	for _, m := range tracedRule.FindAllStringSubmatch(seen.String(), -1) {
		output(fmt.Sprintf("%-18s %s\n", m[1], m[2]))
	}
	fmt.Printf("  Pod %s on %s answered. The node remembers the connection:\n", answer.Pod, answer.Node)
	var pod corev1.Pod
	if err := d.Get(d.ctx, client.ObjectKey{Namespace: "default", Name: answer.Pod}, &pod); err != nil {
		return err
	}
	args := []string{"conntrack", "-L", "-p", "tcp", "--orig-dst", addr.String(), "--reply-src", pod.Status.PodIP}
	command("go run ./e2e/lab exec " + owner + " " + strings.Join(args, " "))
	out, err := node.Run(d.ctx, args...)
	if first, _, ok := strings.Cut(out, "\n"); ok {
		output(first + "\n")
	}
	return err
}
