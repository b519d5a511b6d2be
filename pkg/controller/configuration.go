package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// countersDelay is how long the counters in the pools' statuses may lag behind, so that a burst of Services is few writes.
const countersDelay = 500 * time.Millisecond

// theConfiguration is the one request of the configuration's controller: every object may matter to every other.
var theConfiguration = types.NamespacedName{Name: "configuration"}

// configuration reconciles the allocator with the pools, the pools' statuses with the allocator, and the conditions of all that configures
// Steelyard with what is wrong with it.
type configuration struct {
	client    client.Client
	live      client.Reader
	allocator *ipam.Allocator
	class     string
	namespace string // of the installation
	log       *slog.Logger
	now       func() time.Time
	counters  *counters
	snapshot  *atomic.Pointer[snapshot]

	queue    *queue   // of the configuration
	services *queue   // of the Services
	waiting  *waiting // Services
	adopted  chan struct{}
}

// counted is called when the counters in the pools' statuses may be wrong.
func (c *configuration) counted() { c.queue.add(theConfiguration, countersDelay) }

func (c *configuration) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	res, err := c.resources(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	cfg, faults := config.Parse(res)
	conflicts, err := c.conflicts(ctx, cfg)
	if err != nil {
		return reconcile.Result{}, err
	}
	c.snapshot.Store(&snapshot{cfg, faults, conflicts})
	if err := c.apply(ctx, cfg, res.Pools); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, c.writeStatuses(ctx, res, faults, conflicts)
}

// resources reads all that has a status from the API server: by a cache that lags behind, a pool might seem not to have yet the addresses
// that Services have from it, and a condition not to be written yet.
func (c *configuration) resources(ctx context.Context) (config.Resources, error) {
	var pools v1beta1.IPAddressPoolList
	var reservations v1beta1.AddressReservationList
	var l2 v1beta1.L2AdvertisementList
	var bgp v1beta1.BGPAdvertisementList
	var peers v1beta1.BGPPeerList
	var profiles v1beta1.BFDProfileList
	var communities v1beta1.CommunityList
	var nodes corev1.NodeList
	var secrets corev1.SecretList
	for _, read := range []struct {
		what string
		from client.Reader
		into client.ObjectList
	}{
		{"IPAddressPools", c.live, &pools}, {"AddressReservations", c.live, &reservations}, {"L2Advertisements", c.live, &l2},
		{"BGPAdvertisements", c.live, &bgp}, {"BGPPeers", c.live, &peers}, {"BFDProfiles", c.live, &profiles},
		{"Communities", c.live, &communities}, {"Nodes", c.client, &nodes}, {"Secrets", c.client, &secrets},
	} {
		if err := read.from.List(ctx, read.into); err != nil {
			return config.Resources{}, fmt.Errorf("list %s: %w", read.what, err)
		}
	}
	r := config.Resources{
		Pools: pools.Items, Reservations: reservations.Items, L2Advertisements: l2.Items,
		BGPAdvertisements: bgp.Items, BGPPeers: peers.Items, BFDProfiles: profiles.Items, Communities: communities.Items,
		Namespace: c.namespace, Secrets: map[string]corev1.Secret{}, Nodes: nodes.Items,
	}
	for _, s := range secrets.Items {
		r.Secrets[s.Name] = s
	}
	return r, nil
}

// apply gives the allocator the pools and the reservations, before anything else the addresses that are in use, and has another look at the Services
// that the change concerns.
func (c *configuration) apply(ctx context.Context, cfg *config.Config, pools []v1beta1.IPAddressPool) error {
	changed, concerned := c.allocator.SetPools(cfg.Pools, cfg.Reservations)
	select {
	case <-c.adopted:
		// Those whose address is gone choose before those that wait for one, as package plan has it, too.
		c.oldestFirst(ctx, concerned)
	default:
		remember(pools, c.allocator)
		first, err := c.adopt(ctx, cfg)
		if err != nil {
			return err
		}
		concerned = first
		defer close(c.adopted)
	}
	for _, name := range concerned {
		c.services.add(name, 0)
	}
	if changed {
		c.log.Info("pools changed", "pools", len(cfg.Pools), "reservations", len(cfg.Reservations), "services", len(concerned))
		c.waiting.wake()
	}
	return nil
}

func (c *configuration) oldestFirst(ctx context.Context, services []types.NamespacedName) {
	created := map[types.NamespacedName]metav1.Time{}
	for _, name := range services {
		var svc corev1.Service
		if err := c.client.Get(ctx, name, &svc, client.UnsafeDisableDeepCopy); err == nil {
			created[name] = svc.CreationTimestamp
		}
	}
	slices.SortFunc(services, func(a, b types.NamespacedName) int {
		return assign.CompareAge(created[a], a.String(), created[b], b.String())
	})
}

func (c *configuration) writeStatuses(ctx context.Context, res config.Resources, faults []config.Fault, conflicts []conflict) error {
	now := metav1.NewTime(c.now())
	state := poolState{stats: c.allocator.Stats(), released: c.allocator.Released(), conflicts: conflicts}
	var errs []error
	for i := range res.Pools {
		pool := &res.Pools[i]
		status := state.status(pool, config.Conditions(faults, config.KindIPAddressPool, pool.Name, pool.Generation, now), now)
		if !equality.Semantic.DeepEqual(pool.Status, status) {
			c.logNews(config.KindIPAddressPool, pool.Name, pool.Status.Conditions, status.Conditions)
			errs = append(errs, c.patch(ctx, pool, status))
		}
	}
	for _, o := range objectsWithConditions(&res) {
		name := o.GetName()
		conditions := slices.Clone(o.conditions)
		for _, condition := range config.Conditions(faults, o.kind, name, o.GetGeneration(), now) {
			meta.SetStatusCondition(&conditions, condition)
		}
		if !equality.Semantic.DeepEqual(o.conditions, conditions) {
			c.logNews(o.kind, name, o.conditions, conditions)
			errs = append(errs, c.patch(ctx, o.Object, map[string]any{"conditions": conditions}))
		}
	}
	return errors.Join(errs...)
}

// withConditions is an object whose status has nothing but conditions.
type withConditions struct {
	client.Object
	kind       string
	conditions []metav1.Condition
}

func objectsWithConditions(res *config.Resources) []withConditions {
	var all []withConditions
	for i := range res.Reservations {
		o := &res.Reservations[i]
		all = append(all, withConditions{o, config.KindAddressReservation, o.Status.Conditions})
	}
	for i := range res.L2Advertisements {
		o := &res.L2Advertisements[i]
		all = append(all, withConditions{o, config.KindL2Advertisement, o.Status.Conditions})
	}
	for i := range res.BGPAdvertisements {
		o := &res.BGPAdvertisements[i]
		all = append(all, withConditions{o, config.KindBGPAdvertisement, o.Status.Conditions})
	}
	for i := range res.BGPPeers {
		o := &res.BGPPeers[i]
		all = append(all, withConditions{o, config.KindBGPPeer, o.Status.Conditions})
	}
	for i := range res.BFDProfiles {
		o := &res.BFDProfiles[i]
		all = append(all, withConditions{o, config.KindBFDProfile, o.Status.Conditions})
	}
	for i := range res.Communities {
		o := &res.Communities[i]
		all = append(all, withConditions{o, config.KindCommunity, o.Status.Conditions})
	}
	return all
}

// patch replaces the whole status. The difference alone would leave out the zeros of a new object, and the schema requires them.
func (c *configuration) patch(ctx context.Context, object client.Object, status any) error {
	data, err := json.Marshal([]map[string]any{{"op": "add", "path": "/status", "value": status}})
	if err != nil {
		return err
	}
	kind, name := kindOf(object), object.GetName()
	err = client.IgnoreNotFound(c.client.Status().Patch(ctx, object, client.RawPatch(types.JSONPatchType, data)))
	c.counters.wrote(kind, err)
	if err != nil {
		return fmt.Errorf("write the status of %s %s: %w", kind, name, err)
	}
	return nil
}

// logNews logs the faults that the object did not have before.
func (c *configuration) logNews(kind, name string, before, after []metav1.Condition) {
	for _, condition := range after {
		old := meta.FindStatusCondition(before, condition.Type)
		if condition.Message != "" && (old == nil || old.Message != condition.Message) {
			c.log.Warn(condition.Message, "kind", kind, "name", name, "reason", condition.Reason)
		}
	}
}
