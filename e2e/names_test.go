package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNames(t *testing.T) {
	must(t, lab.DNS(t.Context()))
	web := create(t, lbService("web", families[0], clusterIP))
	must(t, lab.Get(t.Context(), keyOf(web), web))
	create(t, lbService("headless", families[0], clusterIP, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }))
	create(t, lbService("alias", families[0], func(s *corev1.Service) {
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.default.svc.cluster.local"}
	}))
	var pods []string
	for _, p := range podsOf(t, "echo") {
		pods = append(pods, addressOf(t, p, families[0]).String())
	}
	slices.Sort(pods)
	asking := podOn(t, "echo", "node-2")
	for name, want := range map[string][]string{
		"web": {web.Spec.ClusterIP}, "web.default.svc.cluster.local": {web.Spec.ClusterIP}, "headless": pods, "alias": {web.Spec.ClusterIP},
	} {
		must(t, lab.WaitFor(t.Context(), name+" to resolve", func(ctx context.Context) error {
			out, err := lab.Kubectl(ctx, "exec", asking.Name, "--", "/echo", "resolve", name)
			if got := strings.Fields(out); err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("it resolves to %v, want %v", got, want)
			}
			return err
		}))
	}
}
