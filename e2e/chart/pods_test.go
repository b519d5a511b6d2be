package chart_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func controllerOf(t *testing.T, objects []runtime.Object) *appsv1.Deployment {
	t.Helper()
	return find[*appsv1.Deployment](t, objects)
}

func speakerOf(t *testing.T, objects []runtime.Object) *appsv1.DaemonSet {
	t.Helper()
	return find[*appsv1.DaemonSet](t, objects)
}

func TestControllerPrivileges(t *testing.T) {
	pod := controllerOf(t, render(t)).Spec.Template.Spec
	if diff := cmp.Diff(&corev1.PodSecurityContext{
		RunAsNonRoot:   new(true),
		RunAsUser:      new(int64(65532)),
		RunAsGroup:     new(int64(65532)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}, pod.SecurityContext); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}, only(t, pod.Containers).SecurityContext); diff != "" {
		t.Errorf("container (-want +got):\n%s", diff)
	}
	if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.Volumes) > 0 {
		t.Errorf("shares something with the host: network %v, processes %v, IPC %v, volumes %v",
			pod.HostNetwork, pod.HostPID, pod.HostIPC, pod.Volumes)
	}
}

func TestSpeakerPrivileges(t *testing.T) {
	pod := speakerOf(t, render(t)).Spec.Template.Spec
	if !pod.HostNetwork || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("host network %v with DNS policy %s", pod.HostNetwork, pod.DNSPolicy)
	}
	if diff := cmp.Diff(&corev1.PodSecurityContext{
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}, pod.SecurityContext); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&corev1.SecurityContext{
		RunAsUser:                new(int64(0)),
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities: &corev1.Capabilities{
			Drop: []corev1.Capability{"ALL"},
			Add:  []corev1.Capability{"NET_ADMIN", "NET_RAW"},
		},
	}, only(t, pod.Containers).SecurityContext); diff != "" {
		t.Errorf("container (-want +got):\n%s", diff)
	}
	if pod.HostPID || pod.HostIPC {
		t.Errorf("shares more than the network with the host: processes %v, IPC %v", pod.HostPID, pod.HostIPC)
	}
}

// The speaker sees two things of a node's files: the lock of legacy iptables, and, as the only proxy, the network's settings.
// TestSpeakerListensOnLowPorts: only root with NET_BIND_SERVICE may, so only who wants that gives it.
func TestSpeakerListensOnLowPorts(t *testing.T) {
	for port, want := range map[string]bool{"0": false, "179": true, "1179": false} {
		added := only(t, speakerOf(t, render(t, "--set", "bgp.listenPort="+port)).Spec.Template.Spec.Containers).SecurityContext.Capabilities.Add
		if got := slices.Contains(added, "NET_BIND_SERVICE"); got != want {
			t.Errorf("listening on port %s, the speaker has the capabilities %v", port, added)
		}
	}
}

func TestSpeakerVolumes(t *testing.T) {
	const lock, sysctls = "/run/xtables.lock", "/proc/sys/net"
	for mode, want := range map[string]map[string]string{
		"off":          {lock: lock},
		"loadbalancer": {lock: lock},
		"full":         {lock: lock, sysctls: "/host/proc/sys/net"},
	} {
		pod := speakerOf(t, render(t, "--set", "dataplane.mode="+mode+",kubernetes.host=192.0.2.1")).Spec.Template.Spec
		paths := map[string]string{}
		for _, v := range pod.Volumes {
			for _, m := range only(t, pod.Containers).VolumeMounts {
				if m.Name == v.Name && v.HostPath != nil {
					paths[v.HostPath.Path] = m.MountPath
				}
			}
		}
		if diff := cmp.Diff(want, paths); diff != "" || len(pod.Volumes) != len(want) {
			t.Errorf("%s: %d volumes; paths (-want +got):\n%s", mode, len(pod.Volumes), diff)
		}
	}
}

// What has to hold for a rollout, a drain or a full node not to interrupt traffic.
func TestAvailability(t *testing.T) {
	objects := render(t)
	deployment, daemonSet := controllerOf(t, objects), speakerOf(t, objects)
	controller, speaker := deployment.Spec.Template.Spec, daemonSet.Spec.Template.Spec

	if got := ptr.Deref(deployment.Spec.Replicas, 1); got != 2 {
		t.Errorf("%d controllers", got)
	}
	budget := find[*policyv1.PodDisruptionBudget](t, objects).Spec
	if diff := cmp.Diff(new(intstr.FromInt32(1)), budget.MaxUnavailable); diff != "" {
		t.Errorf("disruption budget (-want +got):\n%s", diff)
	}
	selectors := map[string]*metav1.LabelSelector{"Deployment": deployment.Spec.Selector, "PodDisruptionBudget": budget.Selector}
	spread := map[string]corev1.UnsatisfiableConstraintAction{}
	for _, constraint := range controller.TopologySpreadConstraints {
		selectors["spread over "+constraint.TopologyKey] = constraint.LabelSelector
		spread[constraint.TopologyKey] = constraint.WhenUnsatisfiable
		if ptr.Deref(constraint.NodeTaintsPolicy, "") != corev1.NodeInclusionPolicyHonor {
			t.Errorf("nodes that no controller may run on count in the spread over %s", constraint.TopologyKey)
		}
	}
	if diff := cmp.Diff(map[string]corev1.UnsatisfiableConstraintAction{
		corev1.LabelHostname:     corev1.DoNotSchedule,
		corev1.LabelTopologyZone: corev1.ScheduleAnyway,
	}, spread); diff != "" {
		t.Errorf("how controllers are spread (-want +got):\n%s", diff)
	}
	for what, selector := range selectors {
		selects(t, what, selector, deployment.Spec.Template.Labels, daemonSet.Spec.Template.Labels)
	}
	selects(t, "DaemonSet", daemonSet.Spec.Selector, daemonSet.Spec.Template.Labels, deployment.Spec.Template.Labels)

	if diff := cmp.Diff(appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: new(intstr.FromInt32(1)), MaxSurge: new(intstr.FromInt32(0))},
	}, daemonSet.Spec.UpdateStrategy); diff != "" {
		t.Errorf("rollout of the speakers (-want +got):\n%s", diff)
	}
	if got := ptr.Deref(speaker.TerminationGracePeriodSeconds, 0); got != 30 {
		t.Errorf("a speaker has %d s to hand over", got)
	}
	if diff := cmp.Diff([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, speaker.Tolerations); diff != "" {
		t.Errorf("tolerations of the speaker (-want +got):\n%s", diff)
	}
	if controller.PriorityClassName != "system-cluster-critical" || speaker.PriorityClassName != "system-node-critical" {
		t.Errorf("priority classes %q, %q", controller.PriorityClassName, speaker.PriorityClassName)
	}
	for _, pod := range []corev1.PodSpec{controller, speaker} {
		container := only(t, pod.Containers)
		if container.Resources.Requests.Cpu().IsZero() || container.Resources.Requests.Memory().IsZero() {
			t.Errorf("%s requests %v", container.Name, container.Resources.Requests)
		}
		if !container.Resources.Limits.Cpu().IsZero() {
			t.Errorf("%s is throttled at %v", container.Name, container.Resources.Limits.Cpu())
		}
		for path, probe := range map[string]*corev1.Probe{"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != "health" {
				t.Errorf("%s: probe of %s is %v", container.Name, path, probe)
			}
		}
	}
}

// selects checks that the selector matches the one set of labels and not the other.
func selects(t *testing.T, what string, selector *metav1.LabelSelector, in, out map[string]string) {
	t.Helper()
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	if !parsed.Matches(labels.Set(in)) || parsed.Matches(labels.Set(out)) {
		t.Errorf("%s selects by %s", what, parsed)
	}
}

func only[T any](t *testing.T, items []T) T {
	t.Helper()
	if len(items) != 1 {
		t.Fatalf("%d of %T, want one", len(items), *new(T))
	}
	return items[0]
}
