package chart_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The permissions are written out a second time, so that one more is a decision and not an oversight.
func TestPermissions(t *testing.T) {
	objects := render(t)
	for name, test := range map[string]struct{ cluster, namespace []rbacv1.PolicyRule }{
		"steelyard-controller": {
			cluster: []rbacv1.PolicyRule{
				rule("", "services", "get list watch"),
				rule("", "services/status", "patch"),
				rule("", "namespaces nodes", "list watch"),
				rule("steelyard.io", "ipaddresspools l2advertisements bgpadvertisements bgppeers bfdprofiles communities", "list watch"),
				rule("steelyard.io", "addressreservations", "list watch create patch delete"),
				rule("steelyard.io", "ipaddresspools/status addressreservations/status l2advertisements/status bgpadvertisements/status bgppeers/status bfdprofiles/status communities/status", "patch"),
				rule("events.k8s.io", "events", "create patch"),
			},
			namespace: []rbacv1.PolicyRule{
				rule("coordination.k8s.io", "leases", "create"),
				rule("coordination.k8s.io", "leases", "get update", "steelyard-controller"),
				rule("", "events", "create"),
				rule("", "secrets", "create"),
				rule("", "secrets", "list watch"),
				rule("", "secrets", "get", "steelyard-memberlist"),
			},
		},
		"steelyard-speaker": {
			cluster: []rbacv1.PolicyRule{
				rule("", "nodes", "get list watch"),
				rule("", "services", "get list watch"),
				rule("", "services/status", "patch"),
				rule("discovery.k8s.io", "endpointslices", "list watch"),
				rule("steelyard.io", "ipaddresspools l2advertisements bgpadvertisements bgppeers bfdprofiles communities", "list watch"),
				rule("steelyard.io", "serviceannouncements bgpsessions", "list create patch delete"),
				rule("steelyard.io", "bgppeers", "get"),
				rule("", "events", "create"),
			},
			namespace: []rbacv1.PolicyRule{
				rule("", "pods", "list watch"),
				rule("", "secrets", "get", "steelyard-memberlist"),
				rule("", "secrets", "list watch"),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.cluster, find[*rbacv1.ClusterRole](t, objects, name).Rules); diff != "" {
				t.Errorf("ClusterRole (-want +got):\n%s", diff)
			}
			role := find[*rbacv1.Role](t, objects, name)
			if diff := cmp.Diff(test.namespace, role.Rules); diff != "" {
				t.Errorf("Role (-want +got):\n%s", diff)
			}
			if role.Namespace != namespace {
				t.Errorf("Role in namespace %q", role.Namespace)
			}
			subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: namespace}}
			clusterBinding := find[*rbacv1.ClusterRoleBinding](t, objects, name)
			if diff := cmp.Diff(subjects, clusterBinding.Subjects); diff != "" {
				t.Errorf("ClusterRoleBinding (-want +got):\n%s", diff)
			}
			if want := (rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}); clusterBinding.RoleRef != want {
				t.Errorf("ClusterRoleBinding of %v", clusterBinding.RoleRef)
			}
			binding := find[*rbacv1.RoleBinding](t, objects, name)
			if diff := cmp.Diff(subjects, binding.Subjects); diff != "" {
				t.Errorf("RoleBinding (-want +got):\n%s", diff)
			}
			if want := (rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}); binding.RoleRef != want {
				t.Errorf("RoleBinding of %v", binding.RoleRef)
			}
		})
	}
	if roles, clusterRoles := len(all[*rbacv1.Role](objects)), len(all[*rbacv1.ClusterRole](objects)); roles != 2 || clusterRoles != 2 {
		t.Errorf("%d Roles and %d ClusterRoles, want two of each", roles, clusterRoles)
	}
}

func rule(group, resources, verbs string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups:     []string{group},
		Resources:     strings.Fields(resources),
		Verbs:         strings.Fields(verbs),
		ResourceNames: names,
	}
}
