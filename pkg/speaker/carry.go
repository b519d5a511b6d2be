package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/backend"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/engine"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

// DataplaneOptions say which traffic this node carries, and how.
type DataplaneOptions struct {
	dataplane.Config
	Backend string // one of backend.Names
	// HealthzBind is where /healthz, /livez and /proxyMode are served in mode full.
	HealthzBind netip.AddrPort
	// Sysctls is where the kernel's settings can be written; empty for /proc/sys.
	Sysctls string
}

// Cleanup removes all rules that Steelyard has on this node, of any mode and backend.
func Cleanup(ctx context.Context, log *slog.Logger) error {
	var errs []error
	for _, name := range backend.Names {
		errs = append(errs, removeRules(ctx, name, log))
	}
	return errors.Join(errs...)
}

// removeRules removes the rules of one backend. A node that lacks what it needs has no rules of it.
func removeRules(ctx context.Context, name string, log *slog.Logger) error {
	b, err := backend.Open(name, dataplane.Full, "", slog.New(slog.DiscardHandler))
	if err != nil {
		log.Debug("backend not usable, so it has no rules", "backend", name, "error", err)
		return nil
	}
	if err := b.Remove(ctx); err != nil {
		return fmt.Errorf("remove the rules of backend %s: %w", name, err)
	}
	return nil
}

// newDataplane returns the engine that the options ask for; for none, nil, having removed what another mode left.
func newDataplane(ctx, below context.Context, cfg *rest.Config, o Options, reports *reporter, r prometheus.Registerer) (*engine.Engine, error) {
	d := o.Dataplane
	if d.Mode == dataplane.Off {
		return nil, Cleanup(ctx, o.Log)
	}
	if d.Mode == dataplane.Full {
		if err := reachable(ctx, cfg); err != nil {
			return nil, err
		}
	} else {
		d.HealthzBind = netip.AddrPort{} // node ports, and with them their health, are the other proxy's
	}
	b, err := backend.Open(d.Backend, d.Mode, d.Sysctls, o.Log)
	if err != nil {
		return nil, err
	}
	changes, err := monitor.Watch(below, o.Log)
	if err != nil {
		return nil, err
	}
	d.Config.Node, d.Config.Class = o.Node, o.LoadBalancerClass
	return engine.New(engine.Options{
		Config: d.Config, Backend: b, BackendName: d.Backend, Changes: changes, HealthzBind: d.HealthzBind, Sysctls: d.Sysctls, Log: o.Log, Registerer: r,
		Events: func(service, reason, message string) { reports.Warn(service, announce.Reason(reason), message) },
	}), nil
}

// reachable tells a speaker whose API server is behind a ClusterIP that it has to carry itself what to do: it would wait forever.
func reachable(ctx context.Context, cfg *rest.Config) error {
	host, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", host.Host)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server does not answer at %s: %w: with --dataplane=full that address must not be the ClusterIP of the "+
				"kubernetes Service, which only works once this speaker runs: set kubernetes.host and kubernetes.port in the chart's values", host.Host, err)
		case <-time.After(time.Second):
		}
	}
}
