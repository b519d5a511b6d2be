package controller

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// adopt tells the allocator of every address in the status of a Service. The list must not come from a cache: a Service that the
// cache does not show yet may have an address that would be given to another.
//
// It returns the Services that are to be looked at before all that have what they want: those that the cache does not have, whose addresses
// would stay taken because they are never seen again if they were deleted before the watch began; then those whose address is in no pool
// any longer; then those that wait. The oldest are first.
func (c *configuration) adopt(ctx context.Context, cfg *config.Config) ([]types.NamespacedName, error) {
	var list corev1.ServiceList
	if err := c.live.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list the Services, whose addresses must be known before one is given out: %w", err)
	}
	adopted, taken := assign.Adopt(list.Items, c.class, c.allocator)
	for _, t := range taken {
		c.log.Warn("another, older Service has this address too and keeps it", "service", t.Service, "addresses", t.Addresses)
	}
	c.log.Info("addresses in use adopted", "services", adopted)

	var unseen, homeless, waiting []*corev1.Service
	for i := range list.Items {
		svc := &list.Items[i]
		if !assign.Serves(svc, c.class) {
			continue
		}
		condition := meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAddressAssigned)
		var cached corev1.Service
		switch err := c.client.Get(ctx, client.ObjectKeyFromObject(svc), &cached, client.UnsafeDisableDeepCopy); {
		case apierrors.IsNotFound(err):
			unseen = append(unseen, svc)
		case err != nil:
			return nil, err
		case slices.ContainsFunc(assign.Addresses(svc), func(a netip.Addr) bool { return cfg.PoolOf(a) == nil }):
			homeless = append(homeless, svc)
		case condition == nil || condition.Reason != string(ipam.Assigned):
			waiting = append(waiting, svc)
		}
	}
	var first []types.NamespacedName
	for _, group := range [][]*corev1.Service{unseen, homeless, waiting} {
		slices.SortFunc(group, func(a, b *corev1.Service) int {
			x, y := client.ObjectKeyFromObject(a), client.ObjectKeyFromObject(b)
			return assign.CompareAge(a.CreationTimestamp, x.String(), b.CreationTimestamp, y.String())
		})
		for _, svc := range group {
			first = append(first, client.ObjectKeyFromObject(svc))
		}
	}
	return first, nil
}
