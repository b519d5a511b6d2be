package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

func service(name, pool string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "echo"},
			AllocateLoadBalancerNodePorts: new(bool),
			Ports:                         []corev1.ServicePort{{Port: 7000, TargetPort: intstr.FromInt32(7000)}},
		},
	}
	if pool != "" {
		s.Annotations = map[string]string{"steelyard.io/address-pool": pool}
	}
	return s
}

func endpoint(addr netip.Addr) string { return net.JoinHostPort(addr.String(), "7000") }

// newService measures the time from the creation of a Service to its first answer.
func (b *bench) newService(ctx context.Context) error {
	var total sample
	for range b.rounds {
		s := service("fresh", "")
		began := time.Now()
		if err := b.Create(ctx, s); err != nil {
			return err
		}
		addrs, err := b.AwaitAddresses(ctx, s.Name, 1)
		if err != nil {
			return err
		}
		if err := b.WaitFor(ctx, "the first answer", func(ctx context.Context) error {
			_, err := traffic.Ask(ctx, b.Host(cluster.Client), "tcp", endpoint(addrs[0]), 100*time.Millisecond)
			return err
		}); err != nil {
			return err
		}
		total = append(total, time.Since(began))
		if err := b.Delete(ctx, s); err != nil {
			return err
		}
		if err := b.AwaitNoOwner(ctx, addrs[0]); err != nil {
			return err
		}
	}
	fmt.Printf("from creating a Service to its first answer: %s\n", total)
	return nil
}

// failover measures the longest time without a new connection when the owner of an address goes silent, under a client
// that opens one every 20 ms.
func (b *bench) failover(ctx context.Context, what string, load func() (stop func())) error {
	s := service("failover", "")
	if err := b.Create(ctx, s); err != nil {
		return err
	}
	addrs, err := b.AwaitAddresses(ctx, s.Name, 1)
	if err != nil {
		return err
	}
	if err := b.Carried(ctx, addrs...); err != nil {
		return err
	}
	if load != nil {
		defer load()()
	}
	var gaps sample
	for range b.rounds {
		owner, err := b.AwaitOwner(ctx, addrs[0], nil)
		if err != nil {
			return err
		}
		stream := traffic.Start(b.Host(cluster.Client), endpoint(addrs[0]), 20*time.Millisecond)
		if err := b.WaitFor(ctx, "traffic before the failure", stream.Flows(time.Time{})); err != nil {
			return err
		}
		failure := time.Now()
		if err := b.Cut(ctx, owner); err != nil {
			return err
		}
		if err := b.WaitFor(ctx, "traffic after the failure", stream.Flows(failure)); err != nil {
			return err
		}
		gaps = append(gaps, stream.Stop().Gap)
		if err := b.Mend(ctx, owner); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"wait", "--for=condition=Ready", "node", "--all", "--timeout=90s"},
			{"wait", "--for=condition=Ready", "pod", "--all", "--all-namespaces", "--timeout=90s"},
		} {
			if _, err := b.Kubectl(ctx, args...); err != nil {
				return err
			}
		}
	}
	fmt.Printf("longest gap for new connections, %s: %s\n", what, gaps)
	return b.Delete(ctx, s)
}
