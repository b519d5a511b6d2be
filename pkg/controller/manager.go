package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

const (
	// A leader that is killed is replaced after leaseDuration and one jittered retryPeriod, 4.1 s at most.
	leaseDuration = 3 * time.Second
	renewDeadline = 2 * time.Second
	retryPeriod   = 500 * time.Millisecond

	// serviceWorkers wait for the API server most of the time; a burst of Services is written in parallel.
	serviceWorkers = 16
	// maxBackoff is how long a Service whose status can't be written waits for another try, at most.
	maxBackoff = 30 * time.Second
)

// Options configures the controller.
type Options struct {
	Namespace         string // of the installation: of the Lease, of the memberlist Secret and of the peers' passwords
	MemberlistSecret  string
	LoadBalancerClass string // served beside Services without a class
	HealthPort        int
	MetricsPort       int
	LeaderElect       bool
	Log               *slog.Logger
}

// Run runs the controller until the context ends or the leadership is lost, which is an error.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	logger := logr.FromSlogHandler(o.Log.Handler())
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)

	// The API server has priority and fairness of its own; a limit here only delays a burst of Services.
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1

	mgr, err := manager.New(cfg, managerOptions(o, logger))
	if err != nil {
		return err
	}
	if err := setUp(mgr, o, metrics.Registry); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func managerOptions(o Options, logger logr.Logger) manager.Options {
	return manager.Options{
		Scheme:                        cluster.Scheme(),
		Logger:                        logger,
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              cluster.LeaseName,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 ptr.To(leaseDuration),
		RenewDeadline:                 ptr.To(renewDeadline),
		RetryPeriod:                   ptr.To(retryPeriod),
		GracefulShutdownTimeout:       ptr.To(5 * time.Second),
		HealthProbeBindAddress:        fmt.Sprintf(":%d", o.HealthPort),
		Metrics:                       metricsserver.Options{BindAddress: fmt.Sprintf(":%d", o.MetricsPort)},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Node{}: {Transform: slimNode},
				&corev1.Secret{}: {
					Namespaces: map[string]cache.Config{o.Namespace: {}},
					Field:      fields.OneTermEqualSelector("type", string(corev1.SecretTypeBasicAuth)),
					Transform:  slimSecret,
				},
			},
		},
	}
}

// slimNode leaves of a node what the configuration is about; its list of images alone may be larger than all the rest.
func slimNode(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Node{TypeMeta: node.TypeMeta}
	slim.Name, slim.UID, slim.ResourceVersion, slim.Labels = node.Name, node.UID, node.ResourceVersion, node.Labels
	slim.Status.Addresses = node.Status.Addresses
	return slim, nil
}

// slimSecret leaves of a Secret the password. Others than those of this type, such as Helm's with all that was ever installed, are not
// even asked for.
func slimSecret(obj any) (any, error) {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Secret{TypeMeta: secret.TypeMeta, Type: secret.Type}
	slim.Name, slim.Namespace, slim.UID, slim.ResourceVersion = secret.Name, secret.Namespace, secret.UID, secret.ResourceVersion
	if password, ok := secret.Data[corev1.BasicAuthPasswordKey]; ok {
		slim.Data = map[string][]byte{corev1.BasicAuthPasswordKey: password}
	}
	return slim, nil
}

// setUp wires the reconcilers to each other and to the manager.
func setUp(mgr manager.Manager, o Options, registerer prometheus.Registerer) error {
	serviceQueue, configQueue := &queue{}, &queue{}
	waiting := &waiting{queue: serviceQueue}
	counters, last := newCounters(), &atomic.Pointer[snapshot]{}
	configuration := &configuration{
		client:    mgr.GetClient(),
		live:      mgr.GetAPIReader(),
		allocator: ipam.New(),
		class:     o.LoadBalancerClass,
		namespace: o.Namespace,
		log:       o.Log,
		now:       time.Now,
		counters:  counters,
		snapshot:  last,
		queue:     configQueue,
		services:  serviceQueue,
		waiting:   waiting,
		adopted:   make(chan struct{}),
	}
	services := &services{
		client:    mgr.GetClient(),
		live:      mgr.GetAPIReader(),
		allocator: configuration.allocator,
		class:     o.LoadBalancerClass,
		recorder:  mgr.GetEventRecorder(cluster.LeaseName),
		log:       o.Log,
		now:       time.Now,
		counters:  counters,
		snapshot:  last,
		adopted:   configuration.adopted,
		waiting:   waiting,
		counted:   configuration.counted,
	}
	warm := &warmCaches{cache: mgr.GetCache(), full: make(chan struct{})}
	return errors.Join(
		configuration.setUp(mgr),
		services.setUp(mgr, serviceQueue),
		mgr.Add(warm),
		mgr.Add(&memberlistSecret{
			client: mgr.GetClient(),
			live:   mgr.GetAPIReader(),
			name:   types.NamespacedName{Namespace: o.Namespace, Name: o.MemberlistSecret},
			log:    o.Log,
		}),
		mgr.AddHealthzCheck("alive", healthz.Ping),
		mgr.AddReadyzCheck("caches", warm.check),
		registerer.Register(&collector{
			counters: counters, allocator: configuration.allocator, waiting: waiting, snapshot: last, namespace: services.namespaceLabels,
		}),
	)
}

func (s *services) setUp(mgr manager.Manager, queue *queue) error {
	return builder.ControllerManagedBy(mgr).
		Named("service").
		For(&corev1.Service{}).
		WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(s.ofNamespace), builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&v1beta1.AddressReservation{}, handler.EnqueueRequestsFromMapFunc(ofReservation), builder.WithPredicates(keptForService)).
		WatchesRawSource(queue).
		WithOptions(crcontroller.Options{
			MaxConcurrentReconciles: serviceWorkers,
			RecoverPanic:            ptr.To(true),
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, maxBackoff),
		}).
		Complete(s)
}

// ofNamespace returns the Services in a namespace: the namespaceSelectors of a pool may match them now, or no longer.
func (s *services) ofNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	var list corev1.ServiceList
	if err := s.client.List(ctx, &list, client.InNamespace(namespace.GetName()), client.UnsafeDisableDeepCopy); err != nil {
		s.log.Error("list Services", "namespace", namespace.GetName(), "error", err)
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

func (c *configuration) setUp(mgr manager.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: theConfiguration}}
	})
	b := builder.ControllerManagedBy(mgr).Named("configuration")
	for _, kind := range configurationKinds() {
		b = b.Watches(kind, all)
	}
	return b.
		Watches(&corev1.Node{}, all, builder.WithPredicates(nodeChanged)).
		Watches(&corev1.Service{}, all, builder.WithPredicates(conflictChanged)).
		Watches(&corev1.Secret{}, all, builder.WithPredicates(secretChanged)).
		WatchesRawSource(c.queue).
		WatchesRawSource(start(theConfiguration)). // also without a single object
		WithOptions(crcontroller.Options{
			RecoverPanic: ptr.To(true),
			RateLimiter:  workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, maxBackoff),
		}).
		Complete(c)
}

// configurationKinds are those that a config.Config is made of.
func configurationKinds() []client.Object {
	return []client.Object{
		&v1beta1.IPAddressPool{}, &v1beta1.AddressReservation{}, &v1beta1.L2Advertisement{},
		&v1beta1.BGPAdvertisement{}, &v1beta1.BGPPeer{}, &v1beta1.BFDProfile{}, &v1beta1.Community{},
	}
}

// warmCaches fills the caches of a replica that does not lead, so that it can take over at once.
type warmCaches struct {
	cache cache.Cache
	full  chan struct{}
}

// NeedLeaderElection makes it run on every replica.
func (w *warmCaches) NeedLeaderElection() bool { return false }

func (w *warmCaches) Start(ctx context.Context) error {
	namespace := metadataOnly("Namespace")
	for _, object := range append(configurationKinds(), &corev1.Service{}, namespace, &corev1.Node{}, &corev1.Secret{}) {
		for {
			if _, err := w.cache.GetInformer(ctx, object); err == nil {
				break
			}
			select { // the API server may be away, or the CRDs not there yet
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	close(w.full)
	return nil
}

func (w *warmCaches) check(*http.Request) error {
	select {
	case <-w.full:
		return nil
	default:
		return errors.New("the caches are not full yet")
	}
}
