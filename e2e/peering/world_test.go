// Package peering checks BGP and BFD, without Kubernetes, against real routers: FRR and BIRD on machines of their own, in network
// namespaces on one LAN. The test process itself is the node.
package peering

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/e2e/lab/build"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/router"
)

// The machines on the LAN, each with an address of each family that ends in its number: 192.0.2.1 and 2001:db8:1::1.
var machines = map[string]int{"node": 11, "frr": 1, "frr2": 2, "bird": 3}

// far is a machine behind frr, for sessions over more than one hop: 198.51.100.2 and 2001:db8:2::2.
const far = "far"

func addr4(machine string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", machines[machine]))
}

func addr6(machine string) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", machines[machine]))
}

const stage = "STEELYARD_PEERING_WORLD"

func init() {
	if os.Getenv(stage) != "" {
		runtime.LockOSThread() // the first thread is what others find the node's namespace by
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(stage) == "" {
		os.Exit(again())
	}
	if err := makeWorld(); err != nil {
		fmt.Fprintln(os.Stderr, "peering:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// again runs the tests in namespaces of their own; whatever they start ends with them.
func again() int {
	if err := build.Packages(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "peering:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "peering (these tests need root):", err)
		return 1
	}
	return 0
}

func makeWorld() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run/netns: %w", err)
	}
	script := "ip netns attach node 1\nip netns add switch\nip netns exec switch ip link add lan type bridge\nip -n switch link set lan up\n"
	for name, number := range machines {
		if name != "node" {
			script += "ip netns add " + name + "\n"
		}
		script += strings.NewReplacer("NAME", name, "NUMBER", fmt.Sprint(number)).Replace(`
ip netns exec NAME sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.fib_multipath_hash_policy=1
ip -n NAME link set lo up
ip -n switch link add NAME type veth peer name eth0 netns NAME
ip -n switch link set NAME master lan up
ip -n NAME addr add 192.0.2.NUMBER/24 dev eth0
ip -n NAME addr add 2001:db8:1::NUMBER/64 dev eth0 nodad
ip -n NAME link set eth0 up
`)
	}
	script += `
ip netns exec frr sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip netns add far
ip -n far link set lo up
ip netns exec far sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip -n frr link add eth1 type veth peer name eth0 netns far
ip -n frr addr add 198.51.100.1/24 dev eth1
ip -n frr addr add 2001:db8:2::1/64 dev eth1 nodad
ip -n frr link set eth1 up
ip -n far addr add 198.51.100.2/24 dev eth0
ip -n far addr add 2001:db8:2::2/64 dev eth0 nodad
ip -n far link set eth0 up
ip -n far route add default via 198.51.100.1
ip -n far route add default via 2001:db8:2::1
ip -n node route add 198.51.100.0/24 via 192.0.2.1
ip -n node route add 2001:db8:2::/64 via 2001:db8:1::1
`
	cmd := exec.Command("sh", "-ec", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the network: %w: %s", err, out)
	}
	return nil
}

// on returns a machine.
func on(machine string) host.Host { return host.Host{Name: machine, Supervisor: os.Getpid()} }

// frr runs FRR on a machine until the test ends.
func frr(t *testing.T, machine, config string) *router.FRR {
	t.Helper()
	dir := routerDir(t)
	r, err := router.StartFRR(t.Context(), on(machine), dir, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := r.Vtysh(context.Background(), "show running-config", "show bgp summary", "show bfd peers")
			t.Log(out, err)
		}
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// bird runs BIRD on a machine until the test ends.
func bird(t *testing.T, machine, config string) *router.BIRD {
	t.Helper()
	r, err := router.StartBIRD(t.Context(), on(machine), routerDir(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := r.Birdc(context.Background(), "show protocols all")
			t.Log(out, err)
		}
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// routerDir is a folder that a router's own user may enter, with a path short enough for sockets.
func routerDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "router-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "r")
}

// plug pulls a machine's cable, or plugs it in again.
func plug(t *testing.T, machine string, in bool) {
	t.Helper()
	state := map[bool]string{true: "up", false: "down"}[in]
	if _, err := on("switch").Run(context.Background(), "ip", "link", "set", machine, state); err != nil {
		t.Fatal(err)
	}
}

// eventually waits up to half a minute until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestWorld checks the network itself: whatever the tests find is the routers' doing, or ours, then.
func TestWorld(t *testing.T) {
	for machine := range machines {
		for _, a := range []netip.Addr{addr4(machine), addr6(machine)} {
			if _, err := on("node").Run(t.Context(), "ping", "-c1", "-W2", a.String()); err != nil {
				t.Error(err)
			}
		}
	}
	for _, a := range []string{"198.51.100.2", "2001:db8:2::2"} {
		if _, err := on("node").Run(t.Context(), "ping", "-c1", "-W2", a); err != nil {
			t.Error(err)
		}
	}
	f := frr(t, "frr", "router bgp 64512\n neighbor 192.0.2.3 remote-as 64513\n neighbor 192.0.2.3 timers connect 1\n no bgp ebgp-requires-policy\n address-family ipv4 unicast\n  network 203.0.113.0/24 route-map ALL\nexit\nexit\nroute-map ALL permit 10\n set community 64512:7\n set large-community 64512:1:2 additive\n")
	b := bird(t, "bird", `
router id 192.0.2.3;
protocol device {}
protocol kernel { ipv4 { import none; export all; }; }
protocol static { ipv4; route 198.18.0.0/15 via 192.0.2.3; }
protocol bgp { local 192.0.2.3 as 64513; neighbor 192.0.2.1 as 64512; connect delay time 1; ipv4 { import all; export all; }; }
`)
	prefix := netip.MustParsePrefix("203.0.113.0/24")
	if _, err := f.Host.Run(t.Context(), "ip", "route", "add", "blackhole", prefix.String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "BIRD to learn from FRR", func() error {
		routes, err := b.Routes(t.Context())
		if err == nil && (len(routes[prefix]) != 1 || len(routes[prefix][0].NextHops) != 1 || routes[prefix][0].NextHops[0] != addr4("frr") || len(routes[prefix][0].Communities) != 2) {
			err = fmt.Errorf("it has %v", routes)
		}
		return err
	})
	eventually(t, "FRR to learn from BIRD", func() error {
		routes, err := f.Routes(t.Context(), false)
		if p := routes[netip.MustParsePrefix("198.18.0.0/15")]; err == nil && (len(p) != 1 || p[0].ASPath != "64513" || p[0].From != addr4("bird")) {
			err = fmt.Errorf("it has %v", routes)
		}
		return err
	})
	if paths, err := f.Route(t.Context(), prefix); err != nil || len(paths) != 1 || len(paths[0].Communities) != 2 {
		t.Errorf("FRR says of its own route: %v, %v", paths, err)
	}
	eventually(t, "BIRD's kernel to have the route", func() error {
		hops, err := b.NextHops(t.Context(), prefix)
		if err == nil && len(hops) != 1 {
			err = fmt.Errorf("its next hops are %v", hops)
		}
		return err
	})
}
