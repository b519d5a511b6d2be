package controller

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// adopt tells the allocator of every address in the status of a Service. The list must not come from a cache: a Service that the
// cache does not show yet may have an address that would be given to another.
func adopt(ctx context.Context, live client.Reader, class string, allocator *ipam.Allocator, log *slog.Logger) error {
	var list corev1.ServiceList
	if err := live.List(ctx, &list); err != nil {
		return fmt.Errorf("list the Services, whose addresses must be known before one is given out: %w", err)
	}
	adopted, taken := assign.Adopt(list.Items, class, allocator)
	for _, t := range taken {
		log.Warn("another, older Service has this address too and keeps it", "service", t.Service, "addresses", t.Addresses)
	}
	log.Info("addresses in use adopted", "services", adopted)
	return nil
}
