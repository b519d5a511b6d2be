package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/backend"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/rival"
	"github.com/steelyard-lb/steelyard/pkg/speaker"
)

// proxyHealthzPort is where load balancers look for the health of a node's service proxy (KEP-3836).
const proxyHealthzPort = 10256

// dataplaneFlags defines the flags that say which traffic this node carries.
func dataplaneFlags(d *speaker.DataplaneOptions) {
	d.Mode, d.Backend = dataplane.LoadBalancer, backend.Names[0]
	d.HealthzBind = netip.AddrPortFrom(netip.IPv6Unspecified(), proxyHealthzPort)
	oneOf := func(name, usage string, set func(string), values ...string) {
		flag.Func(name, usage, func(text string) error {
			if !slices.Contains(values, text) {
				return fmt.Errorf("use one of %s", strings.Join(values, ", "))
			}
			set(text)
			return nil
		})
	}
	oneOf("dataplane", `which Services this node carries: "loadbalancer", those with addresses that Steelyard assigned, beside the cluster's own proxy; `+
		`"full", all, without another proxy; "off", none (default loadbalancer)`,
		func(text string) { d.Mode = dataplane.Mode(text) }, string(dataplane.LoadBalancer), string(dataplane.Full), string(dataplane.Off))
	oneOf("dataplane-backend", "how it carries them: nftables or iptables (default nftables)", func(text string) { d.Backend = text }, backend.Names...)
	flag.Func("pod-cidrs", "the networks of this node's pods, separated by commas; empty for the Node's spec.podCIDRs", prefixes(&d.PodCIDRs))
	flag.StringVar(&d.PodInterfaces, "pod-interface-prefix", "", "tells the traffic of pods by the interface that it comes from, instead of by its address: cali, veth")
	flag.BoolVar(&d.MasqueradeAll, "masquerade-all", false, "hide the address of pods too when they use a ClusterIP")
	flag.Func("node-port-addresses", `the node's networks that node ports are open on, separated by commas, or "primary"; empty for all but the loopback's`, func(text string) error {
		d.PrimaryOnly = text == "primary"
		if d.PrimaryOnly {
			return nil
		}
		return prefixes(&d.NodePortAddresses)(text)
	})
	flag.StringVar(&d.Sysctls, "sysctls", "/proc/sys", "where the kernel's settings can be written; containers have /proc/sys read-only")
	flag.BoolVar(&d.LocalhostNodePorts, "localhost-node-ports", false, "open node ports on 127.0.0.1 too (mode full, backend iptables)")
}

// prefixes parses networks separated by commas.
func prefixes(to *[]netip.Prefix) func(string) error {
	return func(text string) error {
		*to = nil
		for _, one := range strings.Split(text, ",") {
			if one = strings.TrimSpace(one); one == "" {
				continue
			}
			p, err := netip.ParsePrefix(one)
			if err != nil {
				return fmt.Errorf("%q is no network: write it as 10.244.0.0/16 or fd00::/48", one)
			}
			*to = append(*to, p.Masked())
		}
		return nil
	}
}

// cleanup is the subcommand that takes rules out of the kernel of the node that it runs on.
func cleanup(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("speaker cleanup", flag.ExitOnError)
	kubeProxy := flags.Bool("kube-proxy", false, "remove what a kube-proxy left that runs no more, instead of Steelyard's own rules")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: speaker cleanup [--kube-proxy]\n\nRemoves all rules that Steelyard has on this node. Stop the speaker first, or it puts them back.\n\n")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // exits on error
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: see speaker cleanup --help", flags.Arg(0))
	}
	if os.Geteuid() != 0 {
		return errors.New("speaker cleanup changes the kernel's rules: run it as root, on the node or in a pod with hostNetwork and NET_ADMIN")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if *kubeProxy {
		return rival.CleanKubeProxy(ctx, log)
	}
	return speaker.Cleanup(ctx, log)
}
