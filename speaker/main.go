// Command speaker announces the addresses of Services to the local network, and carries their traffic to pods. It runs on every node.
// "speaker cleanup" removes the rules that it leaves in the kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/speaker"
)

func main() {
	// Most of the heap is what is known of the cluster, which hardly changes; this takes 31 MB with 1000 addresses instead of 34.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := run
	if len(os.Args) > 1 && os.Args[1] == "cleanup" {
		do = func(ctx context.Context) error { return cleanup(ctx, os.Args[2:]) }
	}
	if err := do(ctx); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var o speaker.Options
	var nodeIP, exclude, kubeconfig string
	var level slog.Level
	port := func(p *uint16, name string, value uint16, usage string) {
		*p = value
		flag.Func(name, fmt.Sprintf("%s (default %d)", usage, value), func(text string) error {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil || n == 0 && value != 0 {
				return errors.New("a port is a number from 1 to 65535")
			}
			*p = uint16(n)
			return nil
		})
	}
	flag.StringVar(&o.Node, "node-name", os.Getenv("NODE_NAME"), "the Node that this speaker runs on")
	flag.StringVar(&nodeIP, "node-ip", os.Getenv("HOST_IP"), "the node's address, at which the other speakers reach this one")
	flag.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "the namespace that Steelyard is installed in")
	flag.StringVar(&o.MemberlistSecret, "memberlist-secret", "steelyard-memberlist", "the Secret with the key of the speakers, made by the controller")
	port(&o.MemberlistPort, "memberlist-port", 7946, "the UDP and TCP port on which the speakers talk to each other, the same on all nodes")
	port(&o.HealthPort, "health-port", 7473, "the port of /healthz and /readyz")
	port(&o.MetricsPort, "metrics-port", 7472, "the port of /metrics")
	dataplaneFlags(&o.Dataplane)
	port(&o.BGPListenPort, "bgp-listen-port", 0, "the TCP port on which routers may connect, for BGPPeers with spec.passive; 0 for none")
	flag.StringVar(&o.BGPProgram, "bgp-program", "/bgpd", "the program that holds BGP sessions; it runs while there is a BGPPeer for this node")
	flag.StringVar(&o.LoadBalancerClass, "load-balancer-class", v1beta1.DefaultLoadBalancerClass,
		"the spec.loadBalancerClass that is announced, beside Services without a class; empty for these only")
	flag.StringVar(&exclude, "exclude-interfaces", "", "regular expressions, separated by commas: interfaces that are never used; empty for a default list")
	flag.DurationVar(&o.GratuitousInterval, "gratuitous-interval", 0, "how often addresses that do not move are announced again; 0 for never")
	flag.BoolVar(&o.IgnoreExcludeLB, "ignore-exclude-lb", false, "announce also from nodes with the label node.kubernetes.io/exclude-from-external-load-balancers")
	flag.StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server; empty inside a pod")
	flag.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: see --help", flag.Arg(0))
	}
	if o.Node == "" {
		return errors.New("the node's name is not known: set --node-name or NODE_NAME, in a pod from the field spec.nodeName")
	}
	if o.Namespace == "" {
		return errors.New("the namespace is not known: set --namespace or POD_NAMESPACE")
	}
	var err error
	if o.NodeIP, err = netip.ParseAddr(nodeIP); err != nil {
		return fmt.Errorf("the node's address %q can't be used: set --node-ip or HOST_IP, in a pod from the field status.hostIP", nodeIP)
	}
	if o.ExcludeInterfaces, err = speaker.ExcludePatterns(exclude); err != nil {
		return fmt.Errorf("--exclude-interfaces: %w", err)
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(o.Log)

	var cfg *rest.Config
	if kubeconfig == "" {
		cfg, err = rest.InClusterConfig()
	} else {
		cfg, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return fmt.Errorf("find the API server: %w: run in a pod, or set --kubeconfig", err)
	}
	return speaker.Run(ctx, cfg, o)
}
