package build

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kubernetesVersion is what the programs report of themselves; it is the version in programs/go.mod.
const kubernetesVersion = "v1.36.3"

var programs = []string{
	"go.etcd.io/etcd/server/v3",
	"helm.sh/helm/v4/cmd/helm",
	"k8s.io/kubernetes/cmd/kube-apiserver",
	"k8s.io/kubernetes/cmd/kube-controller-manager",
	"k8s.io/kubernetes/cmd/kube-proxy",
	"k8s.io/kubernetes/cmd/kube-scheduler",
	"k8s.io/kubernetes/cmd/kubectl",
	"k8s.io/kubernetes/cmd/kubelet",
}

// Programs returns the folder that holds etcd, the Kubernetes programs, kubectl and helm, building them first if the
// cache does not have them. A cold build takes about seven minutes on two cores.
func Programs(ctx context.Context) (string, error) {
	cache, root, err := dirs()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "e2e", "lab", "programs")
	key, err := fingerprint(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "programs-"+key)
	done := filepath.Join(dir, ".complete")
	err = locked(dir, func() error {
		if _, err := os.Stat(done); err == nil {
			return nil
		}
		slog.Info("building etcd, Kubernetes and helm, once (about 7 minutes on 2 cores)", "cache", dir)
		const version = "k8s.io/component-base/version"
		major, minor, _ := strings.Cut(strings.TrimPrefix(kubernetesVersion, "v"), ".")
		minor, _, _ = strings.Cut(minor, ".")
		ldflags := fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s", version, kubernetesVersion, major, minor)
		args := append([]string{"-trimpath", "-tags", "programs", "-ldflags", ldflags, "-o", dir + "/"}, programs...)
		if err := goBuild(ctx, module, args...); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, "server"), filepath.Join(dir, "etcd")); err != nil {
			return err
		}
		return os.WriteFile(done, nil, 0o644)
	})
	return dir, err
}

// ProxyBench returns the program that runs kube-proxy's own proxier for the benchmark, built anew if its source changed. It is not one of
// Programs, since the lab does not need it.
func ProxyBench(ctx context.Context) (string, error) {
	cache, root, err := dirs()
	if err != nil {
		return "", err
	}
	program := filepath.Join(cache, "proxybench")
	return program, goBuild(ctx, filepath.Join(root, "e2e", "lab", "programs"), "-trimpath", "-ldflags", "-s -w", "-o", program, "./proxybench")
}

// packages are the Debian packages that the lab and the packet tests need, each with a command that shows it is there.
var packages = []struct{ command, name string }{
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
	{"/usr/lib/frr/bgpd", "frr"},
	{"/usr/sbin/bird", "bird2"},
	{"arping", "iputils-arping"},
	{"bridge", "iproute2"},
	{"conntrack", "conntrack"},
	{"containerd", "containerd"},
	{"curl", "curl"},
	{"ip", "iproute2"},
	{"iptables", "iptables"},
	{"ndisc6", "ndisc6"},
	{"nft", "nftables"},
	{"nsenter", "util-linux"},
	{"ping", "iputils-ping"},
	{"runc", "runc"},
	{"tcpdump", "tcpdump"},
}

// Packages installs the Debian packages that are missing.
func Packages(ctx context.Context) error {
	var missing []string
	for _, p := range packages {
		if _, err := exec.LookPath(p.command); err != nil {
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slog.Info("installing Debian packages", "packages", missing)
	if out, err := exec.CommandContext(ctx, "apt-get", "update", "-qq").CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get update: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get install %s: %w\n%s", strings.Join(missing, " "), err, out)
	}
	return nil
}

// Ctl returns steelyardctl, built from the checkout as it is now.
func Ctl(ctx context.Context) (string, error) {
	cache, root, err := dirs()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "ctl")
	program := filepath.Join(dir, "steelyardctl")
	return program, locked(dir, func() error { return goBuild(ctx, root, "-trimpath", "-o", program, "./ctl") })
}
