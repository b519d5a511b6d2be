package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/lab/host"
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

// StartProxy runs kube-proxy on a node, in mode iptables or nftables, until it is stopped or the lab ends. Its output goes to
// NODE-kube-proxy.log among the lab's logs. Its rules outlive it.
func (l *Lab) StartProxy(node, mode string) (*host.Daemon, error) {
	log := filepath.Join(l.Dir, "logs", node+"-kube-proxy.log")
	p, err := l.Host(node).Start(log, l.Program("kube-proxy"), "--config", proxyConfigFile(l.Dir, node, mode))
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Done():
		return nil, fmt.Errorf("kube-proxy on %s ended at once: %w\n%s", node, p.Err(), tail(log, 10))
	case <-time.After(300 * time.Millisecond):
		return p, nil
	}
}
