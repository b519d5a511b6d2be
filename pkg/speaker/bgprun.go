package speaker

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp/process"
)

// startRouting has routers told until ctx is done. Besides the routing it returns what waits until they have been told that this node leaves:
// first by BGP, where they keep the routes if that was agreed on, then by BFD that it is on purpose. The other way round FRR 8 takes it for a
// failure, and drops the routes.
func startRouting(ctx context.Context, v *inventory, gate Dataplane, report RoutingReporter, synced <-chan struct{}, o Options,
	r prometheus.Registerer) (routing *routing, left func(), err error) {
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	network, err := newKernel(below, o)
	if err != nil {
		stop()
		return nil, nil, err
	}
	command := []string{o.BGPProgram}
	if o.Log.Enabled(ctx, slog.LevelDebug) {
		command = append(command, "-log-level=debug")
	}
	engined, endEngine := context.WithCancel(below)
	engine := process.Start(engined, process.Config{Command: command, Log: o.Log})
	downs := newDowns(engine)
	watching, unwatch := context.WithCancel(below)
	watcher := bfd.New(bfd.Config{Log: o.Log, Registerer: r, Changed: downs.Changed})
	unwatched := make(chan struct{})
	go func() {
		defer close(unwatched)
		_ = watcher.Run(watching) // it has no errors
	}()
	routing = newRouting(v, RoutingConfig{
		Node: o.Node, NodeIP: o.NodeIP, ListenPort: o.BGPListenPort, Engine: engine, BFD: watcher, Downs: downs, Network: network,
		Dataplane: gate, Report: report, Synced: synced, Log: o.Log,
	})
	r.MustRegister(bgpMetrics{engine, routing})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		routing.Run(ctx)
	}()
	return routing, func() {
		<-gone
		endEngine()
		engine.Wait()
		if len(watcher.Statuses()) > 0 {
			time.Sleep(farewell)
		}
		unwatch()
		<-unwatched
		stop()
	}, nil
}
