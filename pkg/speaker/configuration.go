package speaker

import (
	"context"
	"log/slog"
	"maps"
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
	kept(ctx, c, client, log, "ipaddresspools", &v1beta1.IPAddressPool{}, func(p *v1beta1.IPAddressPool) v1beta1.IPAddressPool {
		return v1beta1.IPAddressPool{ObjectMeta: slimMeta(p), Spec: p.Spec}
	}, func(r *config.Resources, all []v1beta1.IPAddressPool) { r.Pools = all })
	kept(ctx, c, client, log, "l2advertisements", &v1beta1.L2Advertisement{}, func(ad *v1beta1.L2Advertisement) v1beta1.L2Advertisement {
		return v1beta1.L2Advertisement{ObjectMeta: slimMeta(ad), Spec: ad.Spec}
	}, func(r *config.Resources, all []v1beta1.L2Advertisement) { r.L2Advertisements = all })
	kept(ctx, c, client, log, "bgpadvertisements", &v1beta1.BGPAdvertisement{}, func(ad *v1beta1.BGPAdvertisement) v1beta1.BGPAdvertisement {
		return v1beta1.BGPAdvertisement{ObjectMeta: slimMeta(ad), Spec: ad.Spec}
	}, func(r *config.Resources, all []v1beta1.BGPAdvertisement) { r.BGPAdvertisements = all })
	kept(ctx, c, client, log, "bgppeers", &v1beta1.BGPPeer{}, func(p *v1beta1.BGPPeer) v1beta1.BGPPeer {
		return v1beta1.BGPPeer{ObjectMeta: slimMeta(p), Spec: p.Spec}
	}, func(r *config.Resources, all []v1beta1.BGPPeer) { r.BGPPeers = all })
	kept(ctx, c, client, log, "bfdprofiles", &v1beta1.BFDProfile{}, func(p *v1beta1.BFDProfile) v1beta1.BFDProfile {
		return v1beta1.BFDProfile{ObjectMeta: slimMeta(p), Spec: p.Spec}
	}, func(r *config.Resources, all []v1beta1.BFDProfile) { r.BFDProfiles = all })
	kept(ctx, c, client, log, "communities", &v1beta1.Community{}, func(p *v1beta1.Community) v1beta1.Community {
		return v1beta1.Community{ObjectMeta: slimMeta(p), Spec: p.Spec}
	}, func(r *config.Resources, all []v1beta1.Community) { r.Communities = all })
	return c.following
}

// custom is a pointer to a custom resource.
type custom interface {
	metav1.Object
	runtime.Object
}

// kept has one kind of custom resource followed and kept, without what does not matter here.
func kept[P custom, T any](ctx context.Context, c *configuration, client rest.Interface, log *slog.Logger, resource string, kind P,
	slim func(P) T, collect func(*config.Resources, []T)) {
	objects := map[string]T{}
	versions := map[string]metav1.ObjectMeta{}
	c.collect = append(c.collect, func(r *config.Resources) {
		all := make([]T, 0, len(objects))
		for _, o := range objects {
			all = append(all, o)
		}
		collect(r, all)
	})
	f := newFeed(func(key string, object P) {
		c.mu.Lock()
		defer c.mu.Unlock()
		// The controller writes statuses all the time; that changes nothing here.
		if old, ok := versions[key]; ok && old.UID == object.GetUID() && old.Generation == object.GetGeneration() && maps.Equal(old.Labels, object.GetLabels()) {
			return
		}
		objects[key], versions[key] = slim(object), slimMeta(object)
		c.parse()
	}, func(key string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(objects, key)
		delete(versions, key)
		c.parse()
	})
	follow(ctx, client, resource, kind, selection{}, f, log)
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

func slimMeta(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: o.GetName(), UID: o.GetUID(), Generation: o.GetGeneration(), Labels: o.GetLabels(), CreationTimestamp: o.GetCreationTimestamp(),
	}
}
