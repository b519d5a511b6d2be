package cluster

import (
	"context"
	"fmt"
	"path/filepath"
)

// startControl starts etcd and the control plane, and returns when the API server is ready.
func (s *supervisor) startControl(ctx context.Context) error {
	v4, v6 := lan(controlNumber)
	if err := s.ca.issue("apiserver", "kube-apiserver", nil, v4.String(), v6.String(), "10.96.0.1", "fd00:10:96::1", "127.0.0.1",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"); err != nil {
		return err
	}
	if _, err := s.ca.kubeconfig("admin", "lab-admin", "system:masters"); err != nil {
		return err
	}
	if err := s.procs.run(ctx, Control, "etcd", s.program("etcd"),
		"--data-dir", "/run/etcd", "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380"); err != nil {
		return err
	}
	if err := s.procs.run(ctx, Control, "kube-apiserver", s.program("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=::", "--advertise-address="+v4.String(), "--secure-port=6443",
		"--tls-cert-file="+s.ca.file("apiserver.crt"), "--tls-private-key-file="+s.ca.file("apiserver.key"),
		"--client-ca-file="+s.ca.file("ca.crt"),
		"--kubelet-client-certificate="+s.ca.file("admin.crt"), "--kubelet-client-key="+s.ca.file("admin.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+s.ca.file("service-account.key"), "--service-account-signing-key-file="+s.ca.file("service-account.key"),
		"--service-cluster-ip-range="+serviceCIDRs,
		"--authorization-mode=Node,RBAC", "--allow-privileged", "--enable-aggregator-routing", "--profiling=false"); err != nil {
		return err
	}
	controllers, err := s.ca.kubeconfig("controller-manager", "system:kube-controller-manager")
	if err != nil {
		return err
	}
	if err := s.procs.run(ctx, Control, "kube-controller-manager", s.program("kube-controller-manager"),
		"--kubeconfig="+controllers, "--leader-elect=false", "--bind-address=127.0.0.1", "--use-service-account-credentials",
		"--service-account-private-key-file="+s.ca.file("service-account.key"), "--root-ca-file="+s.ca.file("ca.crt"),
		"--cluster-cidr="+podCIDRs,
		// A burst of a thousand Services must not wait for their EndpointSlices longer than for their addresses.
		"--kube-api-qps=500", "--kube-api-burst=1000"); err != nil {
		return err
	}
	scheduler, err := s.ca.kubeconfig("scheduler", "system:kube-scheduler")
	if err != nil {
		return err
	}
	if err := s.procs.run(ctx, Control, "kube-scheduler", s.program("kube-scheduler"),
		"--kubeconfig="+scheduler, "--leader-elect=false", "--bind-address=127.0.0.1"); err != nil {
		return err
	}
	if err := s.lab.WaitFor(ctx, "the API server to be ready", func(ctx context.Context) error {
		client, err := s.lab.Clientset()
		if err != nil {
			return err
		}
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(filepath.Join(s.procs.logs, "control-kube-apiserver.log"), 10))
	}
	return nil
}
