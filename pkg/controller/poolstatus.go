package controller

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// poolState is what the statuses of the pools are made of, beside their configuration.
type poolState struct {
	stats     []ipam.Stats
	released  map[string][]netip.Addr
	conflicts []conflict
}

// status returns the status that the pool shall have. The conditions are those that follow from its configuration.
func (s *poolState) status(pool *v1beta1.IPAddressPool, conditions []metav1.Condition, now metav1.Time) v1beta1.IPAddressPoolStatus {
	status := v1beta1.IPAddressPoolStatus{Conditions: pool.DeepCopy().Status.Conditions}
	var full []string
	for _, stats := range s.stats {
		if stats.Pool != pool.Name {
			continue
		}
		if stats.Family == corev1.IPv4Protocol {
			status.AssignedIPv4, status.AvailableIPv4, status.TotalIPv4 = stats.InUse, stats.Available, stats.Total
		} else {
			status.AssignedIPv6, status.AvailableIPv6, status.TotalIPv6 = stats.InUse, stats.Available, stats.Total
		}
		if stats.Total > 0 && stats.Available == 0 {
			text := fmt.Sprintf("no %s address is free, %d of %d are in use", stats.Family, stats.InUse, stats.Total)
			if stats.Reserved > 0 {
				text += fmt.Sprintf(" and %d are reserved", stats.Reserved)
			}
			full = append(full, text)
		}
	}
	for _, a := range s.released[pool.Name] {
		status.Released = append(status.Released, a.String())
	}
	exhausted := metav1.Condition{Type: string(config.ConditionExhausted), Status: metav1.ConditionFalse, Reason: string(config.ReasonAccepted)}
	if len(full) > 0 {
		exhausted.Status, exhausted.Reason = metav1.ConditionTrue, string(ipam.PoolExhausted)
		exhausted.Message = strings.Join(full, "; ") +
			": widen spec.addresses, add another pool, or delete Services that no longer need their addresses, before the next one has to wait"
	}
	contest := metav1.Condition{Type: string(config.ConditionConflict), Status: metav1.ConditionFalse, Reason: string(config.ReasonAccepted)}
	if messages := conflictsOf(s.conflicts, pool.Name); len(messages) > 0 {
		contest.Status, contest.Reason, contest.Message = metav1.ConditionTrue, string(announce.AddressConflict), shortList(messages)
	}
	for _, condition := range append([]metav1.Condition{exhausted, contest}, conditions...) {
		condition.ObservedGeneration, condition.LastTransitionTime = pool.Generation, now
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	return status
}

// conflict is an address of a Service that another machine answers for, by what a speaker says of it.
type conflict struct {
	service types.NamespacedName
	pool    string
	message string // names the address and the machine
}

// conflicts returns, by Service, those that the speakers have found.
func (c *configuration) conflicts(ctx context.Context, cfg *config.Config) ([]conflict, error) {
	var list corev1.ServiceList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the Services, whose conflicts their pools tell of: %w", err)
	}
	var all []conflict
	for i := range list.Items {
		svc := &list.Items[i]
		message := contested(svc)
		if message == "" {
			continue
		}
		for _, p := range contestedPools(assign.Addresses(svc), message, cfg) {
			all = append(all, conflict{client.ObjectKeyFromObject(svc), p, message})
		}
	}
	slices.SortFunc(all, func(a, b conflict) int { return strings.Compare(a.service.String(), b.service.String()) })
	return all, nil
}

// contested returns what a speaker says of the machine that has an address of the Service, "" if there is none.
func contested(svc *corev1.Service) string {
	c := meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAnnounced)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != string(announce.AddressConflict) {
		return ""
	}
	return c.Message
}

// contestedPools returns the pools of the addresses that the message names. Of a Service's two, one may be in peace.
func contestedPools(addrs []netip.Addr, message string, cfg *config.Config) []string {
	var pools []string
	for _, a := range addrs {
		if p := cfg.PoolOf(a); p != nil && !slices.Contains(pools, p.Name) && slices.Contains(strings.Fields(message), a.String()) {
			pools = append(pools, p.Name)
		}
	}
	return pools
}

// conflictsOf returns the messages of a pool's conflicts.
func conflictsOf(conflicts []conflict, pool string) []string {
	var messages []string
	for _, c := range conflicts {
		if c.pool == pool {
			messages = append(messages, fmt.Sprintf("Service %s: %s", c.service, c.message))
		}
	}
	return messages
}

// shortList joins the first few messages and counts the rest.
func shortList(messages []string) string {
	const enough = 5
	if n := len(messages) - enough; n > 0 {
		messages = append(slices.Clone(messages[:enough]), fmt.Sprintf("%d more Services have addresses of other machines.", n))
	}
	return strings.Join(messages, " ")
}

// remember tells the allocator which addresses were given back last, as the pools' statuses have it. What can't be read is as good as
// never used.
func remember(pools []v1beta1.IPAddressPool, allocator *ipam.Allocator) {
	for i := range pools {
		var released []netip.Addr
		for _, text := range pools[i].Status.Released {
			if a, err := netip.ParseAddr(text); err == nil {
				released = append(released, a)
			}
		}
		if len(released) > 0 {
			allocator.Remember(pools[i].Name, released)
		}
	}
}
