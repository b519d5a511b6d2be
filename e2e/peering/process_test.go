package peering

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/bgp/process"
	"github.com/steelyard-lb/steelyard/pkg/bgp/unnumbered"
)

// child is a node's engine in a process of its own, as the speaker has it.
type child struct {
	*process.Engine
	t       *testing.T
	program string
	stop    func()
}

func startChild(t *testing.T) *child {
	t.Helper()
	c := &child{t: t, program: filepath.Join(t.TempDir(), "bgpd")}
	build := exec.Command("go", "build", "-o", c.program, "../../bgpd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build bgpd: %v: %s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.Engine = process.Start(ctx, process.Config{Command: []string{c.program}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	c.stop = func() { cancel(); c.Wait() }
	t.Cleanup(c.stop)
	return c
}

// pid returns the child's, 0 if there is none.
func (c *child) pid() int {
	all, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range all {
		if program, _ := os.Readlink(link); program == c.program {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			return pid
		}
	}
	return 0
}

func (c *child) established() {
	c.t.Helper()
	eventually(c.t, "all sessions", func() error {
		for _, s := range c.Sessions() {
			if s.State != bgp.Established {
				return fmt.Errorf("with %s it is %v: %s", s.Peer, s.State, s.LastError)
			}
		}
		return nil
	})
}

func hostRoutes(n int, peers ...string) []bgp.Route {
	attributes := &bgp.Attributes{}
	var all []bgp.Route
	for i := range n {
		all = append(all, bgp.Route{
			Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(i >> 8), byte(i)}), 32),
			Paths:  []bgp.Path{{Peers: peers, Attributes: attributes}},
		})
	}
	return all
}

const anyNeighbor = `
router bgp 64512
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 neighbor NODE remote-as 65001
 neighbor NODE timers connect 1
 address-family ipv4 unicast
  neighbor NODE activate
`

// TestKilledProcess: what a crash of the BGP process costs with graceful restart, and without.
func TestKilledProcess(t *testing.T) {
	config := strings.ReplaceAll(anyNeighbor, "NODE", addr4("node").String())
	keeps, drops := frr(t, "frr", config), frr(t, "frr2", config)
	c := startChild(t)
	d := bgp.Desired{RouterID: addr4("node"), Peers: []bgp.Peer{peer("drops", addr4("frr2")), peer("keeps", addr4("frr"))}, Routes: hostRoutes(500, "drops", "keeps")}
	for i := range d.Peers {
		d.Peers[i].IPv6 = false
	}
	d.Peers[1].RestartTime = 30 * time.Second
	c.Sync(d)
	c.established()
	learns(t, keeps, false, 500)
	learns(t, drops, false, 500)

	// Watched until both sessions are new and the routers have settled.
	ctx, cancel := context.WithCancel(t.Context())
	fewest := make(chan [2]int, 1)
	go func() {
		n := [2]int{500, 500}
		for ctx.Err() == nil {
			for i, f := range []*router.FRR{keeps, drops} {
				if routes, err := f.Routes(ctx, false); err == nil {
					n[i] = min(n[i], len(routes))
				}
			}
		}
		fewest <- n
	}()
	killed := time.Now()
	first := c.pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() error {
		if pid := c.pid(); pid == 0 || pid == first {
			return fmt.Errorf("process %d was killed, found %d", first, pid)
		}
		return nil
	})
	eventually(t, "the sessions to tell of it", func() error {
		for _, s := range c.Sessions() {
			if !strings.Contains(s.LastError, "killed") || s.State != bgp.Established || s.Announced != 500 {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	learns(t, drops, false, 500)
	t.Logf("all routes were there again %v after the process was killed", time.Since(killed).Round(time.Millisecond))
	eventually(t, "stale routes to be said anew", func() error {
		out, err := keeps.Vtysh(t.Context(), "show bgp ipv4 unicast")
		if n := strings.Count(out, "\nS*"); err == nil && n > 0 {
			err = fmt.Errorf("%d are stale", n)
		}
		return err
	})
	cancel()
	if n := <-fewest; n[0] != 500 {
		t.Errorf("the router with graceful restart had only %d of 500 routes for a while", n[0])
	} else {
		t.Logf("the router without graceful restart had %d routes for a while", n[1])
	}

	c.stop()
	learns(t, drops, false, 0) // a Cease at once, not the hold timer
	if routes, err := keeps.Routes(t.Context(), false); err != nil || len(routes) != 500 {
		t.Errorf("after the speaker's end the router with graceful restart has %d routes, %v", len(routes), err)
	}
}

// TestUnnumbered: FRR finds the node by its router advertisements, and the node FRR by FRR's.
func TestUnnumbered(t *testing.T) {
	for _, arguments := range []string{
		"ip -n frr2 link add p2p type veth peer name p2p netns node", "ip -n frr2 link set p2p up", "ip -n node link set p2p up",
	} {
		if out, err := exec.Command("sh", "-c", arguments).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", arguments, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "p2p").Run() })
	f := frr(t, "frr2", `
router bgp 64512
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 neighbor p2p interface remote-as external
 neighbor p2p timers connect 1
 address-family ipv6 unicast
  neighbor p2p activate
`)
	found := unnumbered.New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- found.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	found.Sync([]string{"p2p"})
	var address netip.Addr
	eventually(t, "FRR on the interface", func() error {
		var ok bool
		if address, ok = found.Peers()["p2p"]; !ok {
			return fmt.Errorf("faults: %v", found.Faults())
		}
		return nil
	})
	c := startChild(t)
	p := peer("frr2", address)
	p.PeerASN, p.NextHop4, p.Device = 0, netip.Addr{}, "p2p"
	c.Sync(bgp.Desired{RouterID: addr4("node"), Peers: []bgp.Peer{p}, Routes: []bgp.Route{
		route("198.51.100.7/32", bgp.Attributes{}, "frr2"), route("2001:db8:77::/64", bgp.Attributes{}, "frr2"),
	}})
	c.established()
	learns(t, f, true, 1)
	learns(t, f, false, 1)
}

// TestMemoryOfManyRoutes says what BGP costs a node in memory. The limit is generous: what matters is the figure that it logs.
func TestMemoryOfManyRoutes(t *testing.T) {
	var config strings.Builder
	config.WriteString("router bgp 64512\n no bgp ebgp-requires-policy\n")
	for _, node := range []netip.Addr{addr4("node"), addr6("node")} {
		fmt.Fprintf(&config, " neighbor %[1]s remote-as 65001\n neighbor %[1]s timers connect 1\n", node)
	}
	fmt.Fprintf(&config, " address-family ipv6 unicast\n  neighbor %s activate\n", addr6("node"))
	routers := []*router.FRR{frr(t, "frr", config.String()), frr(t, "frr2", config.String())}
	c := startChild(t)
	d := bgp.Desired{RouterID: addr4("node"), Peers: []bgp.Peer{
		peer("a4", addr4("frr")), peer("a6", addr6("frr")), peer("b4", addr4("frr2")), peer("b6", addr6("frr2")),
	}}
	c.Sync(d)
	c.established()
	before, _ := c.memory()
	d.Routes = hostRoutes(many, "a4", "a6", "b4", "b6")
	c.Sync(d)
	for _, r := range routers {
		learns(t, r, false, many)
	}
	most, file := c.memory()
	t.Logf("memory of bgpd with 4 sessions: %.1f MB without routes, %.1f MB while %d routes are sent, and %.1f MB of file pages",
		float64(before)/1024, float64(most)/1024, many, float64(file)/1024)
	if most > 80<<10 {
		t.Errorf("bgpd has %d kB of its own", most)
	}
	if os.Getenv("STEELYARD_BENCH") != "" {
		time.Sleep(40 * time.Second) // it gives memory back once it has been quiet for a while
		settled, _ := c.memory()
		t.Logf("memory of bgpd with %d routes, 40 s later: %.1f MB", many, float64(settled)/1024)
	}
}

// memory returns the child's anonymous memory and the file pages that it has mapped, in KiB.
func (c *child) memory() (anonymous, file int) {
	c.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 {
			switch f[0] {
			case "RssAnon:":
				anonymous, _ = strconv.Atoi(f[1])
			case "RssFile:":
				file, _ = strconv.Atoi(f[1])
			}
		}
	}
	return anonymous, file
}
