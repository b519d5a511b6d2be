package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/steelyard-lb/steelyard/pkg/dataplane/engine"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
	"github.com/steelyard-lb/steelyard/pkg/membership"
)

// Options configures the speaker program.
type Options struct {
	Node              string     // the Node that it runs on
	NodeIP            netip.Addr // at which the other speakers reach it
	Namespace         string     // of the speakers' pods and of their Secret
	MemberlistPort    uint16
	MemberlistSecret  string
	HealthPort        uint16
	MetricsPort       uint16
	Dataplane         DataplaneOptions
	BGPListenPort     uint16 // 0 for none
	BGPProgram        string // bgpd
	LoadBalancerClass string // announced beside Services without a class
	ExcludeInterfaces []*regexp.Regexp
	// GratuitousInterval is the time between announcements of addresses that do not move; 0 for none.
	GratuitousInterval time.Duration
	IgnoreExcludeLB    bool
	Log                *slog.Logger
}

// Run runs the speaker until ctx is done; then it hands its addresses over and leaves.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	klog.SetLogger(logr.FromSlogHandler(o.Log.Handler()))
	a, err := newAPI(cfg)
	if err != nil {
		return err
	}
	// What the speaker stands on outlives ctx, so that it can hand over. When some of it fails, the speaker ends.
	below, stop := context.WithCancel(context.Background())
	defer stop()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	health := &health{}
	viewer := &viewer{}
	if err := serve(below, fail, o, registry, health, viewer); err != nil {
		return err
	}
	reports := newReporter(a, o.Node, o.Log)
	go reports.run(below)
	carrier, err := newDataplane(ctx, below, cfg, o, reports, registry)
	if err != nil {
		return err
	}

	var s *Speaker
	l2 := layer2.New(layer2.Config{
		Exclude: o.ExcludeInterfaces, Interval: o.GratuitousInterval, Log: o.Log, Registerer: registry,
		Ours: func(mac net.HardwareAddr) bool { return s.Ours(mac) },
	})
	synced := make(chan struct{})
	statuses := newStatuses(a, o.Node, o.Log)
	go statuses.run(below)
	config := Config{Node: o.Node, Layer2: l2, Reporter: reports, Shown: shown{statuses, below}, Synced: synced, Log: o.Log, Registerer: registry}
	var gate *guard
	if carrier != nil {
		gate = newGuard(carrier, o.Log, reports.WarnNode)
		config.Dataplane = gate
	}
	s = New(config)
	go func() {
		if err := l2.Run(below); err != nil {
			fail(err)
		}
	}()

	feeds, err := connect(ctx, below, a, o, s, carrier, health, synced)
	if err != nil {
		return ended(ctx, err)
	}
	if carrier != nil {
		go func() {
			if err := carrier.Run(below); err != nil {
				fail(err)
			}
		}()
		go func() {
			select {
			case <-feeds.synced:
				gate.run(below)
			case <-below.Done():
			}
		}()
	}
	routing, left, err := startRouting(ctx, s.inventory, config.Dataplane, statuses, feeds.synced, o, registry)
	if err != nil {
		return err
	}
	health.set(func() error { return errors.Join(notReady(s, feeds), routing.Ready()) })
	viewer.set(s, routing, o.Dataplane)
	go shown{statuses, below}.settle(func() bool { return s.Active() && routing.Ready() == nil })
	members, err := join(ctx, below, a, o, s, feeds, registry)
	if err == nil {
		err = s.Run(ctx, members)
	}
	fail(nil)
	left()
	return ended(ctx, err)
}

// ended returns what ended the speaker; nil if it was told to.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// connect has the speaker and the dataplane, if there is one, follow the API.
func connect(ctx, below context.Context, a *api, o Options, s *Speaker, carrier *engine.Engine, h *health, synced chan<- struct{}) (*feeds, error) {
	if err := a.awaitNode(ctx, o); err != nil {
		return nil, err
	}
	feeds := startFeeds(below, a, o, s.inventory, carrier)
	h.set(func() error { return notReady(s, feeds) })
	go func() {
		select {
		case <-feeds.synced:
			close(synced)
		case <-below.Done():
		}
	}()
	return feeds, nil
}

// join has the speaker meet the other speakers.
func join(ctx, below context.Context, a *api, o Options, s *Speaker, feeds *feeds, r prometheus.Registerer) (*membership.List, error) {
	key, err := a.awaitKey(ctx, o)
	if err != nil {
		return nil, err
	}
	// The list of peers first, so that membership knows for whom to wait.
	select {
	case <-feeds.listed["pods"]:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return membership.Start(below, membership.Config{
		Name: o.Node, Bind: o.NodeIP, Port: o.MemberlistPort, Key: key, Peers: feeds.peers.addrs,
		Replica: s.Replica(), Log: o.Log, Registerer: r,
	})
}

// notReady says what a speaker that does not announce yet is waiting for.
func notReady(s *Speaker, f *feeds) error {
	switch missing := f.missing(); {
	case len(missing) > 0:
		return fmt.Errorf("waiting for the API server to list %s", strings.Join(missing, ", "))
	case !s.Active():
		return errors.New("waiting for the other speakers")
	}
	return nil
}

// ExcludePatterns parses the comma-separated regular expressions of --exclude-interfaces; none gives nil.
func ExcludePatterns(list string) ([]*regexp.Regexp, error) {
	var patterns []*regexp.Regexp
	for _, text := range strings.Split(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := regexp.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no regular expression: %w", text, err)
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

// serve offers metrics, what this node knows, and health. A port that another program has is an error at once.
func serve(ctx context.Context, fail func(error), o Options, registry *prometheus.Registry, h *health, v *viewer) error {
	health := http.NewServeMux()
	health.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	health.HandleFunc("/readyz", h.ready)
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	v.register(metrics)
	for _, server := range []struct {
		port    uint16
		flag    string
		handler http.Handler
	}{{o.HealthPort, "--health-port", health}, {o.MetricsPort, "--metrics-port", metrics}} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(int(server.port)))
		if err != nil {
			return fmt.Errorf("listen on port %d: %w: free it on this node, or choose another with %s", server.port, err, server.flag)
		}
		srv := &http.Server{Handler: server.handler, ReadHeaderTimeout: 10 * time.Second}
		go func() {
			if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				fail(err)
			}
		}()
		context.AfterFunc(ctx, func() { _ = srv.Close() })
	}
	return nil
}
