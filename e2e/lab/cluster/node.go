package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"

	"github.com/steelyard-lb/steelyard/e2e/lab/build"
)

// node is what the configuration files of one node are made from.
type node struct {
	Name, Dir, Run string
	Pods4, Pods6   string
	CA, Kubeconfig string
	Sandbox        string
	DNS            netip.Addr
}

const containerdConfig = `version = 2
root = "{{.Dir}}/containerd"
state = "{{.Run}}/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{{.Run}}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Sandbox}}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{{.Dir}}/cni"
`

const cniConfig = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {
  "type": "host-local", "dataDir": "{{.Run}}/ipam",
  "ranges": [[{"subnet": "{{.Pods4}}"}], [{"subnet": "{{.Pods6}}"}]],
  "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "{{.CA}}"}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: "unix://{{.Run}}/containerd.sock"
podLogsDir: "{{.Dir}}/pod-logs"
volumePluginDir: "{{.Dir}}/volume-plugins"
resolvConf: "{{.Dir}}/resolv.conf"
clusterDNS: ["{{.DNS}}"]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
shutdownGracePeriod: 0s
`

// startNode starts containerd and kubelet on node number i.
func (s *supervisor) startNode(ctx context.Context, i int) error {
	name := NodeName(i)
	v4, v6 := lan(nodeNumber(i))
	kubeconfig, err := s.ca.kubeconfig(name, "system:node:"+name, "system:nodes")
	if err != nil {
		return err
	}
	n := node{
		Name: name, Dir: filepath.Join(s.Dir, name), Run: filepath.Join("/run", name),
		Pods4: podCIDR4(i), Pods6: podCIDR6(i), CA: s.ca.file("ca.crt"), Kubeconfig: kubeconfig,
		Sandbox: build.ImageName("pause"), DNS: DNS,
	}
	for _, dir := range []string{n.Run, filepath.Join(n.Dir, "cni")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{
		"containerd.toml": containerdConfig, "cni/10-pods.conflist": cniConfig, "kubelet.yaml": kubeletConfig, "resolv.conf": "",
	} {
		if err := n.write(file, text); err != nil {
			return err
		}
	}
	if err := s.procs.run(ctx, name, "containerd", "containerd", "--config", filepath.Join(n.Dir, "containerd.toml"), "--log-level", "warn"); err != nil {
		return err
	}
	if err := s.importImages(ctx, n); err != nil {
		return err
	}
	if err := s.writeProxyConfig(name); err != nil {
		return err
	}
	return s.procs.run(ctx, name, "kubelet", s.program("kubelet"),
		"--config", filepath.Join(n.Dir, "kubelet.yaml"), "--kubeconfig", kubeconfig,
		"--root-dir", filepath.Join(n.Dir, "kubelet"), "--cert-dir", filepath.Join(n.Dir, "kubelet-pki"),
		"--hostname-override", name, "--node-ip", fmt.Sprintf("%s,%s", v4, v6))
}

func (n node) write(file, text string) error {
	var out bytes.Buffer
	if err := template.Must(template.New(file).Parse(text)).Execute(&out, n); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, file), out.Bytes(), 0o644)
}

func (s *supervisor) importImages(ctx context.Context, n node) error {
	socket := filepath.Join(n.Run, "containerd.sock")
	if err := s.lab.WaitFor(ctx, "containerd of "+n.Name, func(ctx context.Context) error {
		return ctr(ctx, socket, "version")
	}); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(filepath.Join(s.procs.logs, n.Name+"-containerd.log"), 10))
	}
	for _, archive := range s.Images {
		if err := ctr(ctx, socket, "images", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

// LoadImages builds the images from the checkout as it is now and brings them to every node.
func (l *Lab) LoadImages(ctx context.Context) error {
	images, err := build.Images(ctx)
	if err != nil {
		return err
	}
	for i := 1; i <= l.Nodes; i++ {
		socket := filepath.Join("/run", NodeName(i), "containerd.sock")
		for _, archive := range images {
			if _, err := l.Host(NodeName(i)).Run(ctx, "ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", archive); err != nil {
				return err
			}
		}
	}
	return nil
}

func ctr(ctx context.Context, socket string, args ...string) error {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %v: %w: %s", args, err, out)
	}
	return nil
}
