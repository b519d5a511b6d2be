package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// many measures the controller with n Services: how long each waits for its address in a burst, how much memory that takes, and how long
// after a restart of both replicas the next Service has one.
//
// No speaker runs meanwhile, and the Services have no endpoints: a machine that has the whole cluster on it is busy enough with the API
// server and the controllers of Kubernetes.
func (b *bench) many(ctx context.Context, n int) (err error) {
	if err := b.Install(ctx, "speaker.nodeSelector.speakers=none"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Install(ctx)) }()
	if err := b.thousand(ctx, n, func(s *corev1.Service) { s.Spec.Selector = nil }); err != nil {
		return err
	}
	before, err := b.versions(ctx)
	if err != nil {
		return err
	}
	var pods corev1.PodList
	if err := b.List(ctx, &pods, client.InNamespace(fixture.Namespace), client.MatchingLabels{"app.kubernetes.io/component": "controller"}); err != nil {
		return err
	}
	old := map[string]int{}
	for _, p := range pods.Items {
		if old[p.Name], err = host.PodProcess(p.Name, "controller"); err != nil {
			return err
		}
		if err := host.KillPod(p.Name, "controller", syscall.SIGTERM); err != nil {
			return err
		}
	}
	stopped := time.Now()
	var running time.Time
	if err := b.WaitFor(ctx, "a controller to run again", func(context.Context) error {
		for _, p := range pods.Items {
			if pid, err := host.PodProcess(p.Name, "controller"); err == nil && pid != old[p.Name] {
				running = time.Now()
				return nil
			}
		}
		return errors.New("none does")
	}); err != nil {
		return err
	}
	if err := b.Create(ctx, service("after-restart", "thousands")); err != nil {
		return err
	}
	if _, err := b.AwaitAddresses(ctx, "after-restart", 1); err != nil {
		return err
	}
	assigned := time.Now()
	if err := b.Delete(ctx, service("after-restart", "")); err != nil {
		return err
	}
	after, err := b.versions(ctx)
	if err != nil {
		return err
	}
	written := 0
	for name, version := range before {
		if after[name] != version {
			written++
		}
	}
	fmt.Printf("both controllers restarted with %d Services: the next Service has its address %s after one runs again (%s after the signal); %d Services were written to\n",
		n, ms(assigned.Sub(running)), ms(assigned.Sub(stopped)), written)
	return nil
}

// burst measures something that leaves the Services of a burst behind, and removes them.
func (b *bench) burst(ctx context.Context, measure func() error) error {
	return errors.Join(measure(), b.DeleteAllOf(ctx, &corev1.Service{}, client.InNamespace("default"), client.MatchingLabels{"burst": "yes"}))
}

// versions are those of the Services' objects, by name.
func (b *bench) versions(ctx context.Context) (map[string]string, error) {
	var list corev1.ServiceList
	if err := b.List(ctx, &list, client.InNamespace("default")); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, s := range list.Items {
		if strings.HasPrefix(s.Name, "burst-") {
			versions[s.Name] = s.ResourceVersion
		}
	}
	return versions, nil
}
