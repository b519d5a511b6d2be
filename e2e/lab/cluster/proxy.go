package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// The lab runs without kube-proxy. The scenarios and measurements that need one start it on a node.

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: "%s"
hostnameOverride: "%s"
clusterCIDR: "%s"
clientConnection: {kubeconfig: "%s"}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// The modes of kube-proxy.
var proxyModes = []string{"iptables", "nftables"}

func proxyConfigFile(dir, node, mode string) string {
	return filepath.Join(dir, node, "kube-proxy-"+mode+".yaml")
}

func (s *supervisor) writeProxyConfig(node string) error {
	kubeconfig, err := s.ca.kubeconfig(node+"-proxy", "system:kube-proxy")
	if err != nil {
		return err
	}
	for _, mode := range proxyModes {
		text := fmt.Sprintf(proxyConfig, mode, node, podCIDRs, kubeconfig)
		if err := os.WriteFile(proxyConfigFile(s.Dir, node, mode), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Proxy is a kube-proxy that runs on a node.
type Proxy struct {
	PID  int // as this process sees it
	done chan struct{}
}

// StartProxy runs kube-proxy on a node, in mode iptables or nftables, until Stop or the end of the lab. Its output goes to
// NODE-kube-proxy.log among the lab's logs.
func (l *Lab) StartProxy(node, mode string) (*Proxy, error) {
	log, err := os.OpenFile(filepath.Join(l.Dir, "logs", node+"-kube-proxy.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// In the lab's process namespace, so that it ends with the lab.
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(l.supervisor), "-m", "-p", "--", "nsenter", "--net=/run/netns/"+node, "--",
		l.Program("kube-proxy"), "--config", proxyConfigFile(l.Dir, node, mode))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kube-proxy on %s: %w", node, err)
	}
	p := &Proxy{PID: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		err = cmd.Wait()
		close(p.done)
	}()
	select {
	case <-p.done:
		return nil, fmt.Errorf("kube-proxy on %s ended at once: %v\n%s", node, err, tail(log.Name(), 10))
	case <-time.After(300 * time.Millisecond):
		return p, nil
	}
}

// Stop kills kube-proxy, if it still runs. Its rules stay.
func (p *Proxy) Stop(ctx context.Context) error {
	if err := syscall.Kill(-p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill kube-proxy: %w", err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
