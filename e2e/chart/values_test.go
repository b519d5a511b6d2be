package chart_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const everyValue = `
fullnameOverride: balance
image:
  controller: {repository: registry.example/controller, tag: v1}
  speaker: {repository: registry.example/speaker, tag: v2}
  pullPolicy: Always
imagePullSecrets: [{name: registry}]
loadBalancerClass: example.com/edge
logLevel: debug
kubernetes: {host: "2001:db8::1", port: 7443}
dataplane:
  mode: full
  backend: iptables
  podCIDRs: [10.244.0.0/16, "fd00::/48"]
  podInterfacePrefix: cali
  masqueradeAll: true
  nodePortAddresses: [192.0.2.0/24]
  localhostNodePorts: true
bgp: {listenPort: 179}
controller:
  replicas: 3
  resources: {requests: {cpu: 1, memory: 1Gi}}
  nodeSelector: {role: controller}
  tolerations: [{key: controller, operator: Exists}]
  affinity: {podAffinity: {}}
  priorityClassName: important
  extraArgs: [--leader-elect=false]
speaker:
  resources: {requests: {cpu: 2, memory: 2Gi}}
  nodeSelector: {role: edge}
  tolerations: [{key: edge, operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: most-important
  excludeInterfaces: [^veth, "^eno[12]$"]
  gratuitousInterval: 1m30s
  ignoreExcludeLB: true
  ports: {memberlist: 17946, metrics: 17472, health: 17473}
  extraArgs: [--log-level=warn]
`

func withEveryValue(t *testing.T) []runtime.Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(everyValue), 0o600); err != nil {
		t.Fatal(err)
	}
	return render(t, "--values", file)
}

func TestValuesReachThePods(t *testing.T) {
	objects := withEveryValue(t)

	deployment := controllerOf(t, objects)
	if deployment.Name != "balance-controller" || *deployment.Spec.Replicas != 3 {
		t.Errorf("%s with %d replicas", deployment.Name, *deployment.Spec.Replicas)
	}
	controller := deployment.Spec.Template.Spec
	scheduled(t, controller, "important", "controller", &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}})
	run(t, controller, "registry.example/controller:v1", "1", []string{
		"--load-balancer-class=example.com/edge",
		"--memberlist-secret=steelyard-memberlist",
		"--metrics-port=7472",
		"--health-port=7473",
		"--log-level=debug",
		"--leader-elect=false",
	})
	environment(t, controller, apiServer("POD_NAME", "metadata.name", "POD_NAMESPACE", "metadata.namespace"))

	daemonSet := speakerOf(t, objects)
	if daemonSet.Name != "balance-speaker" {
		t.Errorf("speaker is named %s", daemonSet.Name)
	}
	speaker := daemonSet.Spec.Template.Spec
	scheduled(t, speaker, "most-important", "edge", &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}})
	run(t, speaker, "registry.example/speaker:v2", "2", []string{
		"--dataplane=full",
		"--dataplane-backend=iptables",
		"--pod-cidrs=10.244.0.0/16,fd00::/48",
		"--pod-interface-prefix=cali",
		"--masquerade-all",
		"--node-port-addresses=192.0.2.0/24",
		"--sysctls=/host/proc/sys",
		"--localhost-node-ports",
		"--bgp-listen-port=179",
		"--load-balancer-class=example.com/edge",
		"--memberlist-secret=steelyard-memberlist",
		"--memberlist-port=17946",
		"--metrics-port=17472",
		"--health-port=17473",
		"--exclude-interfaces=^veth,^eno[12]$",
		"--gratuitous-interval=1m30s",
		"--ignore-exclude-lb=true",
		"--log-level=debug",
		"--log-level=warn",
	})
	environment(t, speaker, apiServer("NODE_NAME", "spec.nodeName", "HOST_IP", "status.hostIP",
		"POD_NAME", "metadata.name", "POD_NAMESPACE", "metadata.namespace"))
	// The node's ports are declared, so that a pod that cannot have one stays Pending and says why.
	if diff := cmp.Diff([]corev1.ContainerPort{
		{Name: "memberlist", ContainerPort: 17946},
		{Name: "memberlist-udp", ContainerPort: 17946, Protocol: corev1.ProtocolUDP},
		{Name: "metrics", ContainerPort: 17472},
		{Name: "health", ContainerPort: 17473},
		{Name: "bgp", ContainerPort: 179},
	}, only(t, speaker.Containers).Ports); diff != "" {
		t.Errorf("ports of the speaker (-want +got):\n%s", diff)
	}
}

// Both programs take the arguments that the chart gives them: they come as far as --help.
func TestProgramsTakeTheArguments(t *testing.T) {
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", programs+"/", "./controller", "./speaker")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, objects := range map[string][]runtime.Object{"defaults": render(t), "every value": withEveryValue(t)} {
		for _, pod := range []corev1.PodSpec{controllerOf(t, objects).Spec.Template.Spec, speakerOf(t, objects).Spec.Template.Spec} {
			container := only(t, pod.Containers)
			command := exec.Command(filepath.Join(programs, container.Name), append(container.Args, "--help")...)
			if out, err := command.CombinedOutput(); err != nil {
				t.Errorf("%s: %s %q: %v\n%s", name, container.Name, container.Args, err, out)
			}
		}
	}
}

// The list of what is excluded by default is the speaker's; a copy here would grow old.
func TestSpeakerKnowsWhatToExclude(t *testing.T) {
	for _, arg := range only(t, speakerOf(t, render(t)).Spec.Template.Spec.Containers).Args {
		if strings.HasPrefix(arg, "--exclude-interfaces") {
			t.Error(arg)
		}
	}
}

// A cluster with a proxy finds the API server by itself; a variable of ours would freeze its address.
func TestAPIServerIsLeftToTheKubelet(t *testing.T) {
	objects := render(t)
	for _, pod := range []corev1.PodTemplateSpec{controllerOf(t, objects).Spec.Template, speakerOf(t, objects).Spec.Template} {
		for _, variable := range only(t, pod.Spec.Containers).Env {
			if variable.Value != "" {
				t.Errorf("%s=%s", variable.Name, variable.Value)
			}
		}
	}
}

func TestImagesFollowTheAppVersion(t *testing.T) {
	objects := render(t)
	version := controllerOf(t, objects).Labels["app.kubernetes.io/version"]
	controller := only(t, controllerOf(t, objects).Spec.Template.Spec.Containers).Image
	speaker := only(t, speakerOf(t, objects).Spec.Template.Spec.Containers).Image
	if version == "" || controller != "ghcr.io/steelyard-lb/controller:"+version || speaker != "ghcr.io/steelyard-lb/speaker:"+version {
		t.Errorf("version %q, images %s and %s", version, controller, speaker)
	}
}

func scheduled(t *testing.T, pod corev1.PodSpec, priority, role string, affinity *corev1.Affinity) {
	t.Helper()
	type scheduling struct {
		Priority    string
		Nodes       map[string]string
		Tolerations []corev1.Toleration
		Affinity    *corev1.Affinity
		PullSecrets []corev1.LocalObjectReference
	}
	want := scheduling{
		Priority: priority,
		// Helm merges maps: the default stays beside what the user adds.
		Nodes:       map[string]string{"kubernetes.io/os": "linux", "role": role},
		Tolerations: []corev1.Toleration{{Key: role, Operator: corev1.TolerationOpExists}},
		Affinity:    affinity,
		PullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
	}
	got := scheduling{pod.PriorityClassName, pod.NodeSelector, pod.Tolerations, pod.Affinity, pod.ImagePullSecrets}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func run(t *testing.T, pod corev1.PodSpec, image, cpu string, args []string) {
	t.Helper()
	container := only(t, pod.Containers)
	if container.Image != image || container.ImagePullPolicy != corev1.PullAlways {
		t.Errorf("image %s is pulled %s", container.Image, container.ImagePullPolicy)
	}
	if got := container.Resources.Requests.Cpu().String(); got != cpu || len(container.Resources.Requests) != 2 {
		t.Errorf("%s requests %v", container.Name, container.Resources.Requests)
	}
	if diff := cmp.Diff(args, container.Args); diff != "" {
		t.Errorf("arguments of %s (-want +got):\n%s", container.Name, diff)
	}
}

func environment(t *testing.T, pod corev1.PodSpec, want []corev1.EnvVar) {
	t.Helper()
	if diff := cmp.Diff(want, only(t, pod.Containers).Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

// apiServer gives variables with the pod's own fields (name, path, name, path, ...), and the API server's address.
func apiServer(fields ...string) []corev1.EnvVar {
	var variables []corev1.EnvVar
	for pair := range slices.Chunk(fields, 2) {
		variables = append(variables, corev1.EnvVar{Name: pair[0], ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: pair[1]},
		}})
	}
	return append(variables,
		corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: "2001:db8::1"},
		corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: "7443"})
}
