// Package engine keeps the kernel's rules for Services as they have to be on this node: it takes what the API server says, has a Tracker make
// a Model of it, and a Backend put that in the kernel; then it forgets UDP flows to what no longer serves, and answers health checks.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/conntrack"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/health"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

// patience is how long a change may wait for being put in the kernel before /healthz says so: twice kube-proxy's sync period.
const patience = 60 * time.Second

// Options is what an Engine is made of. All but Config, Backend and Log may be left out.
type Options struct {
	dataplane.Config
	Backend     dataplane.Backend
	BackendName string                // "iptables" or "nftables"
	HealthzBind netip.AddrPort        // where /healthz, /livez and /proxyMode are served
	Changes     <-chan monitor.Change // of the ruleset, whoever makes them
	MinInterval time.Duration         // between two syncs while changes keep coming; 0 for what suits the backend
	Sysctls     string                // where the kernel's settings can be written; empty for /proc/sys
	Log         *slog.Logger
	Registerer  prometheus.Registerer
	Events      func(service, reason, message string) // a warning about a Service (namespace/name), for its owner; must not block
}

// Engine runs the dataplane of this node. What it is told with Set and Delete may be told from any goroutine, in any order, and is cheap.
type Engine struct {
	Options
	log     *slog.Logger
	metrics *metrics
	kernel  kernel
	wake    chan struct{}

	mu       sync.Mutex
	tracker  *dataplane.Tracker
	model    dataplane.Model // changed by Run only
	gate     *gate
	served   func(netip.Addr) bool
	started  bool
	paused   bool
	eligible bool      // see health.Status
	waiting  int       // what the engine was told since the last sync began
	queued   time.Time // when the first of that came; zero for none
	applying time.Time // likewise, of what the sync in progress, or the one that failed, is about

	run runState
}

// kernel is what the engine wants of the kernel, besides the Backend.
type kernel struct {
	watch func(context.Context, *slog.Logger) <-chan []netip.Addr // this node's addresses, at once and after each change
	clean func(s *conntrack.Services, open func(netip.Addr) bool) (int, error)
	tune  func() error
}

// New returns an Engine that is to be run.
func New(o Options) *Engine {
	if o.MinInterval == 0 {
		o.MinInterval = 50 * time.Millisecond
		if o.BackendName == "iptables" {
			o.MinInterval = 250 * time.Millisecond // a restore costs tens of milliseconds of a CPU
		}
	}
	if o.Sysctls == "" {
		o.Sysctls = "/proc/sys"
	}
	if o.Events == nil {
		o.Events = func(string, string, string) {}
	}
	e := &Engine{
		Options: o,
		log:     o.Log.With("component", "dataplane"),
		kernel:  kernel{watchAddrs, conntrack.Clean, func() error { return conntrack.Tune(o.Sysctls) }},
		wake:    make(chan struct{}, 1),
		tracker: dataplane.NewTracker(o.Config),
		gate:    newGate(),
	}
	e.run = newRunState(e)
	e.metrics = newMetrics(e, o.Registerer)
	return e
}

// tell has f tell the tracker something.
func (e *Engine) tell(f func()) {
	e.mu.Lock()
	f()
	e.waiting++
	if e.queued.IsZero() {
		e.queued = time.Now()
	}
	e.mu.Unlock()
	e.nudge()
}

func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// SetService adds or replaces a Service. The key is namespace/name.
func (e *Engine) SetService(key string, svc *corev1.Service) {
	spec, proxied := dataplane.ServiceOf(svc)
	addrs := balanced(svc)
	e.metrics.changes.WithLabelValues("service").Inc()
	e.tell(func() {
		e.gate.set(key, addrs)
		if proxied {
			e.tracker.SetService(key, spec)
		} else {
			e.tracker.DeleteService(key)
		}
	})
}

// balanced are the Service's load-balancer addresses.
func balanced(svc *corev1.Service) (addrs []netip.Addr) {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

// DeleteService removes a Service.
func (e *Engine) DeleteService(key string) {
	e.metrics.changes.WithLabelValues("service").Inc()
	e.tell(func() {
		e.gate.set(key, nil)
		e.tracker.DeleteService(key)
	})
}

// SetSlice adds or replaces an EndpointSlice. The key is the slice's namespace/name.
func (e *Engine) SetSlice(key string, slice *discoveryv1.EndpointSlice) {
	spec, ok := dataplane.SliceOf(slice)
	e.metrics.changes.WithLabelValues("endpointslice").Inc()
	e.tell(func() {
		if ok {
			e.tracker.SetSlice(key, spec)
		} else {
			e.tracker.DeleteSlice(key)
		}
	})
}

// DeleteSlice removes an EndpointSlice.
func (e *Engine) DeleteSlice(key string) {
	e.metrics.changes.WithLabelValues("endpointslice").Inc()
	e.tell(func() { e.tracker.DeleteSlice(key) })
}

// SetNode tells about this node.
func (e *Engine) SetNode(node *corev1.Node) {
	n := dataplane.NodeOf(node)
	e.tell(func() {
		e.eligible = !n.Deleting
		e.tracker.SetNode(n)
	})
}

// SetDown tells which nodes have lost power.
func (e *Engine) SetDown(nodes []string) { e.tell(func() { e.tracker.SetDown(nodes) }) }

// DeleteNode tells that this node's Node is gone: load balancers learn that nothing new should come here. The rules stay as they are.
func (e *Engine) DeleteNode() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.eligible = false
}

// SetServed tells which load-balancer addresses are carried in LoadBalancer mode; none before the first call. It is to be called again when
// the answers change; each function's answers must not.
func (e *Engine) SetServed(served func(netip.Addr) bool) {
	e.tell(func() {
		if e.Mode == dataplane.LoadBalancer {
			e.gate.renew(func(a netip.Addr) bool { return served(a) && (e.served == nil || !e.served(a)) })
		}
		e.served = served
		e.tracker.SetServed(served)
	})
}

// Start tells that all that exists has been told. Nothing is programmed before, so that a speaker that starts takes no good rule away.
func (e *Engine) Start() {
	e.mu.Lock()
	e.started = true
	if e.queued.IsZero() {
		e.queued = time.Now()
	}
	e.mu.Unlock()
	e.nudge()
}

// Pause takes all rules out of the kernel, and keeps them out until Resume: another proxy carries the Services.
func (e *Engine) Pause() { e.setPaused(true) }

// Resume ends what Pause began.
func (e *Engine) Resume() { e.setPaused(false) }

func (e *Engine) setPaused(paused bool) {
	e.mu.Lock()
	if e.paused != paused {
		e.paused = paused
		e.gate.renew(every)
		e.queued, e.applying = time.Now(), time.Time{} // all of it is to be put in the kernel, from now on
	}
	e.mu.Unlock()
	e.nudge()
}

// Carries tells whether the kernel's rules carry all Services that are known to have the load-balancer address, and there is one. A change that
// could not be put in the kernel makes it false until it could.
func (e *Engine) Carries(addr netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gate.carries(addr)
}

// Changed receives when answers of Carries may have changed. There is one channel, for one receiver.
func (e *Engine) Changed() <-chan struct{} { return e.gate.news }

// Settled tells whether all that was told is in the kernel, and what follows from it was done.
func (e *Engine) Settled() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started && e.queued.IsZero() && e.applying.IsZero()
}

// Healthy tells whether the rules are up to date, with kube-proxy's meaning, and what is wrong if not.
func (e *Engine) Healthy() (ok bool, details string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	since := e.behind()
	if age := time.Since(since); !since.IsZero() && age > patience && !e.paused {
		return false, fmt.Sprintf("changes of Services have been waiting for %s to be put in the kernel; the log says why", age.Round(time.Second))
	}
	return true, ""
}

// behind is since when there has been something that is not in the kernel; zero if there isn't.
func (e *Engine) behind() time.Time {
	if !e.applying.IsZero() {
		return e.applying
	}
	return e.queued
}

// Handler answers /healthz, /livez and /proxyMode.
func (e *Engine) Handler() http.Handler {
	return health.Handler(func() health.Status {
		healthy, _ := e.Healthy()
		e.mu.Lock()
		defer e.mu.Unlock()
		s := health.Status{Healthy: healthy, Eligible: e.eligible, Updated: e.behind()}
		if healthy {
			s.Updated = time.Now()
		}
		return s
	}, e.BackendName, e.metrics.answered)
}
