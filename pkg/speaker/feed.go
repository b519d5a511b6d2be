package speaker

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/engine"
)

// feed hands the objects of one kind to those who want them, and keeps nothing of them but their keys: the inventory has what matters in
// a small form. An API server that is away changes nothing; when it is back, what was missed is made up for.
type feed[T metav1.Object] struct {
	set    func(key string, object T)
	remove func(key string)

	mu     sync.Mutex
	keys   map[string]struct{}
	synced chan struct{}
}

func newFeed[T metav1.Object](set func(string, T), remove func(string)) *feed[T] {
	return &feed[T]{set: set, remove: remove, keys: map[string]struct{}{}, synced: make(chan struct{})}
}

func keyOf(o metav1.Object) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

// Add implements cache.ReflectorStore.
func (f *feed[T]) Add(object any) error { return f.Update(object) }

// Update implements cache.ReflectorStore.
func (f *feed[T]) Update(object any) error {
	if o, ok := object.(T); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		key := keyOf(o)
		f.keys[key] = struct{}{}
		f.set(key, o)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (f *feed[T]) Delete(object any) error {
	if o, ok := object.(T); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		key := keyOf(o)
		delete(f.keys, key)
		f.remove(key)
	}
	return nil
}

// Replace implements cache.ReflectorStore. It is called with a complete list only.
func (f *feed[T]) Replace(objects []any, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := f.keys
	f.keys = make(map[string]struct{}, len(objects))
	for _, object := range objects {
		if o, ok := object.(T); ok {
			key := keyOf(o)
			delete(gone, key)
			f.keys[key] = struct{}{}
			f.set(key, o)
		}
	}
	for key := range gone {
		f.remove(key)
	}
	select {
	case <-f.synced:
	default:
		close(f.synced)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed[T]) Resync() error { return nil }

// selection narrows what a feed is fed with.
type selection struct {
	namespace, labels string
	fields            fields.Selector
}

// follow feeds f until ctx is done.
func follow[T metav1.Object](ctx context.Context, c rest.Interface, resource string, object runtime.Object, sel selection, f *feed[T], log *slog.Logger) {
	lw := cache.NewFilteredListWatchFromClient(c, resource, sel.namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = sel.labels
		if sel.fields != nil {
			o.FieldSelector = sel.fields.String()
		}
	})
	logger := logr.FromSlogHandler(log.Handler())
	r := cache.NewReflectorWithOptions(lw, object, f, cache.ReflectorOptions{
		Name:   resource,
		Logger: &logger,
		// The default waits for up to half a minute after the API server is back.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 3 * time.Second, Steps: 10, Factor: 2, Jitter: 0.5},
	})
	go r.RunWithContext(logr.NewContext(ctx, logger))
}

// feeds are all that the speaker follows.
type feeds struct {
	peers  *peers
	listed map[string]<-chan struct{} // by resource
	synced chan struct{}              // closed once the inventory holds everything
}

// startFeeds fills the inventory from the API, and goes on until ctx is done.
func startFeeds(ctx context.Context, a *api, o Options, v *inventory, e *engine.Engine) *feeds {
	apply := v.SetConfig
	setService, removeService := func(string, *corev1.Service) {}, func(string) {}
	setSlice, removeSlice := func(string, *discoveryv1.EndpointSlice) {}, func(string) {}
	setNode, removeNode := func(*corev1.Node) {}, func() {}
	proxied := loadBalancers
	if e != nil {
		apply = func(c *config.Config) {
			e.SetServed(func(a netip.Addr) bool { return c.PoolOf(a) != nil })
			v.SetConfig(c)
		}
		setService, removeService, setSlice, removeSlice = e.SetService, e.DeleteService, e.SetSlice, e.DeleteSlice
		setNode, removeNode = e.SetNode, e.DeleteNode
		if o.Dataplane.Mode == dataplane.Full {
			proxied = fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone)
		}
	}
	c := &configuration{namespace: o.Namespace, apply: apply}
	p := &peers{node: o.Node, byPod: map[string]netip.Addr{}}

	// The dataplane hears of everything first, so that its gate is closed when the speaker looks.
	services := newFeed(func(key string, svc *corev1.Service) {
		setService(key, svc)
		if s, ours := serviceOf(key, svc, o.LoadBalancerClass); ours {
			v.SetService(s)
		} else {
			v.DeleteService(key)
		}
	}, func(key string) {
		removeService(key)
		v.DeleteService(key)
	})
	endpoints := newFeed(func(key string, s *discoveryv1.EndpointSlice) {
		setSlice(key, s)
		v.SetEndpoints(key, endpointsOf(s, o.Node))
	}, func(key string) {
		removeSlice(key)
		v.DeleteEndpoints(key)
	})
	nodes := newFeed(func(key string, n *corev1.Node) {
		if key == o.Node {
			setNode(n)
		}
		v.SetNode(nodeOf(n, o.Node, o.IgnoreExcludeLB))
	}, func(key string) {
		if key == o.Node {
			removeNode()
		}
		v.DeleteNode(key)
	})
	pods := newFeed(p.set, p.remove)
	secrets := newFeed(v.setPassword, v.removePassword)

	follow(ctx, a.core, "pods", &corev1.Pod{}, selection{namespace: o.Namespace, labels: speakerPods}, pods, o.Log)
	follow(ctx, a.core, "secrets", &corev1.Secret{}, selection{namespace: o.Namespace, fields: passwords}, secrets, o.Log)
	follow(ctx, a.core, "nodes", &corev1.Node{}, selection{}, nodes, o.Log)
	follow(ctx, a.core, "services", &corev1.Service{}, selection{fields: proxied}, services, o.Log)
	follow(ctx, a.discovery, "endpointslices", &discoveryv1.EndpointSlice{}, selection{labels: endpointsOfServices}, endpoints, o.Log)

	f := &feeds{peers: p, synced: make(chan struct{}), listed: map[string]<-chan struct{}{
		"pods": pods.synced, "nodes": nodes.synced, "services": services.synced, "endpointslices": endpoints.synced, "secrets": secrets.synced,
	}}
	for resource, listed := range c.follow(ctx, a.steelyard, o.Log) {
		f.listed[resource] = listed
	}
	go func() {
		for _, listed := range f.listed {
			select {
			case <-listed:
			case <-ctx.Done():
				return
			}
		}
		c.start()
		close(f.synced)
	}()
	return f
}

// missing returns the resources that have not been listed yet.
func (f *feeds) missing() []string {
	var names []string
	for name, listed := range f.listed {
		if !isClosed(listed) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
