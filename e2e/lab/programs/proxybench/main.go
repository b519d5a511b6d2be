// Proxybench runs kube-proxy's own proxier, without an API server: it takes Services and EndpointSlices from its standard input, one JSON
// object a line, and tells how long each sync took. The benchmark of the dataplane, which it takes its orders from, says what they mean.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	utilsysctl "k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/proxy"
	"k8s.io/kubernetes/pkg/proxy/iptables"
	"k8s.io/kubernetes/pkg/proxy/nftables"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
	utiliptables "k8s.io/kubernetes/pkg/util/iptables"
)

type order struct {
	Service *corev1.Service
	Slice   *discoveryv1.EndpointSlice
	Sync    bool
}

type report struct{ Kernel, Event time.Duration }

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: proxybench iptables|nftables NODE NODE-IP POD-CIDR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], net.ParseIP(os.Args[3]), os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "proxybench:", err)
		os.Exit(1)
	}
}

func run(mode, node string, ip net.IP, podCIDR string) error {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard) // errors go to standard error all the same
	p, err := newProxier(mode, node, ip, podCIDR)
	if err != nil {
		return err
	}
	p.OnServiceSynced() // syncs nothing before the slices are synced too
	orders, reports := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		begin := time.Now()
		if o.Service != nil {
			p.OnServiceAdd(o.Service)
		}
		if o.Slice != nil {
			p.OnEndpointSliceUpdate(nil, o.Slice)
		}
		if !o.Sync {
			continue
		}
		sync := time.Now()
		p.OnEndpointSlicesSynced() // syncs in this goroutine, every time
		if err := reports.Encode(report{Kernel: time.Since(sync), Event: time.Since(begin)}); err != nil {
			return err
		}
	}
}

// newProxier has kube-proxy's defaults, for IPv4 only: kube-proxy has a proxier per family, which work side by side. Its SyncLoop, which
// would wait up to a second before each sync, is not run.
func newProxier(mode, node string, ip net.IP, podCIDR string) (proxy.Provider, error) {
	const (
		period, minPeriod = 30 * time.Second, time.Second
		masqueradeAll     = false
		masqueradeBit     = 14
		initOnly          = false
	)
	ctx, local := context.Background(), proxyutil.NewDetectLocalByCIDR(podCIDR)
	switch mode {
	case "nftables":
		return nftables.NewProxier(ctx, corev1.IPv4Protocol, period, minPeriod, masqueradeAll, masqueradeBit, local, node, ip, nil, nil, nil, initOnly)
	case "iptables":
		ipt := utiliptables.NewBestEffort()[corev1.IPv4Protocol]
		if ipt == nil {
			return nil, errors.New("iptables does not work here")
		}
		const localhostNodePorts = true
		return iptables.NewProxier(ctx, corev1.IPv4Protocol, ipt, utilsysctl.New(), period, minPeriod, masqueradeAll, localhostNodePorts, masqueradeBit,
			local, node, ip, nil, nil, nil, initOnly)
	}
	return nil, fmt.Errorf("mode %q is neither iptables nor nftables", mode)
}
