package speaker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// configuration keeps the custom resources, and parses them when one changes.
type configuration struct {
	namespace string // of the installation
	apply     func(*config.Config)

	mu        sync.Mutex
	started   bool
	collect   []func(*config.Resources)
	following map[string]<-chan struct{}
}

// follow keeps the custom resources of every kind until ctx is done, and returns what is closed once a kind has been listed.
func (c *configuration) follow(ctx context.Context, client rest.Interface, log *slog.Logger) map[string]<-chan struct{} {
	c.following = map[string]<-chan struct{}{}
	kept(ctx, c, client, log, "ipaddresspools", func(r *config.Resources, all []v1beta1.IPAddressPool) { r.Pools = all })
	kept(ctx, c, client, log, "l2advertisements", func(r *config.Resources, all []v1beta1.L2Advertisement) { r.L2Advertisements = all })
	kept(ctx, c, client, log, "bgpadvertisements", func(r *config.Resources, all []v1beta1.BGPAdvertisement) { r.BGPAdvertisements = all })
	kept(ctx, c, client, log, "bgppeers", func(r *config.Resources, all []v1beta1.BGPPeer) { r.BGPPeers = all })
	kept(ctx, c, client, log, "bfdprofiles", func(r *config.Resources, all []v1beta1.BFDProfile) { r.BFDProfiles = all })
	kept(ctx, c, client, log, "communities", func(r *config.Resources, all []v1beta1.Community) { r.Communities = all })
	return c.following
}

// custom is a pointer to a custom resource.
type custom[T any] interface {
	*T
	metav1.Object
	runtime.Object
}

// kept has one kind of custom resource followed and kept, without metadata that does not matter here.
func kept[T any, P custom[T]](ctx context.Context, c *configuration, client rest.Interface, log *slog.Logger, resource string,
	collect func(*config.Resources, []T)) {
	objects := map[string]T{}
	c.collect = append(c.collect, func(r *config.Resources) { collect(r, slices.Collect(maps.Values(objects))) })
	f := newFeed(func(key string, object P) {
		c.mu.Lock()
		defer c.mu.Unlock()
		// The controller writes statuses all the time; that changes nothing here.
		if kept, ok := objects[key]; ok {
			if old := P(&kept); old.GetUID() == object.GetUID() && old.GetGeneration() == object.GetGeneration() && maps.Equal(old.GetLabels(), object.GetLabels()) {
				return
			}
		}
		object.SetManagedFields(nil)
		object.SetAnnotations(nil)
		objects[key] = *object
		c.parse()
	}, func(key string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(objects, key)
		c.parse()
	})
	follow(ctx, client, resource, P(new(T)), selection{}, f, log)
	c.following[resource] = f.synced
}

func (c *configuration) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = true
	c.parse()
}

// parse applies the configuration. Faults are the controller's to report.
func (c *configuration) parse() {
	if !c.started {
		return
	}
	r := config.Resources{Namespace: c.namespace}
	for _, collect := range c.collect {
		collect(&r)
	}
	parsed, _ := config.Parse(r)
	c.apply(parsed)
}
