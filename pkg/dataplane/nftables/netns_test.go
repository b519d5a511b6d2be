package nftables

import (
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// privateNet moves the test to a network namespace of its own. Its thread ends with the test, since it stays locked.
func privateNet(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of its own: %v (the test needs root)", err)
	}
}

func newBackend(t testing.TB, mode dataplane.Mode) *Backend {
	t.Helper()
	b, err := New(Config{Mode: mode, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nftList(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func endpoints(local bool, addrs ...string) []dataplane.Endpoint {
	var out []dataplane.Endpoint
	for _, a := range addrs {
		out = append(out, dataplane.Endpoint{Addr: netip.MustParseAddrPort(a), Local: local})
	}
	return out
}

// web is a Service with everything.
func web() *dataplane.Port {
	return &dataplane.Port{
		Name: dataplane.PortName{Service: "default/web", Port: "http", Protocol: dataplane.TCP}, Family: dataplane.IPv4,
		Frontends: []dataplane.Frontend{
			{Kind: dataplane.ClusterIP, Addr: netip.MustParseAddr("10.96.0.10"), Port: 80},
			{Kind: dataplane.NodePort, Port: 30080},
			{Kind: dataplane.LoadBalancerIP, Addr: netip.MustParseAddr("192.0.2.1"), Port: 80},
		},
		Cluster:       append(endpoints(true, "10.244.1.2:8080"), endpoints(false, "10.244.2.2:8080", "10.244.3.2:8080")...),
		Local:         endpoints(true, "10.244.1.2:8080"),
		ExternalLocal: true,
		SourceRanges:  []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("203.0.113.0/26"), netip.MustParsePrefix("198.51.100.7/32")},
		OwnSource:     true,
	}
}

func (b *Backend) list(t testing.TB) string { return nftList(t, "list", "table", "ip", "steelyard") }
