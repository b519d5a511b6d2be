package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// adopt tells the allocator of every address in the status of a Service. The list must not come from a cache: a Service that the
// cache does not show yet may have an address that would be given to another.
func adopt(ctx context.Context, live client.Reader, class string, allocator *ipam.Allocator, log *slog.Logger) error {
	var list corev1.ServiceList
	if err := live.List(ctx, &list); err != nil {
		return fmt.Errorf("list the Services, whose addresses must be known before one is given out: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Service) int {
		return compareAge(a.CreationTimestamp, string(a.UID), b.CreationTimestamp, string(b.UID))
	})
	adopted := 0
	for i := range list.Items {
		svc := &list.Items[i]
		current := addresses(svc)
		if !serves(svc, class) || len(current) == 0 {
			continue
		}
		adopted++
		if taken := allocator.Adopt(client.ObjectKeyFromObject(svc), current); len(taken) > 0 {
			log.Warn("another, older Service has this address too and keeps it", "service", client.ObjectKeyFromObject(svc), "addresses", taken)
		}
	}
	log.Info("addresses in use adopted", "services", adopted)
	return nil
}

// compareAge orders objects by age, and those of one second by whatever tells them apart.
func compareAge(a metav1.Time, aID string, b metav1.Time, bID string) int {
	if c := a.Time.Compare(b.Time); c != 0 {
		return c
	}
	return strings.Compare(aID, bID)
}
