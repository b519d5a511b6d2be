package peering

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

func rss(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return strings.Join(regexp.MustCompile(`(VmHWM|VmRSS|RssAnon|RssFile|Threads):\s+\d+`).FindAllString(string(b), -1), " ")
}

func TestMeasure(t *testing.T) {
	config := strings.ReplaceAll(anyNeighbor, "NODE", addr4("node").String())
	keeps, drops := frr(t, "frr", config+strings.ReplaceAll(`
exit
exit
router bgp 64512
 neighbor NODE remote-as 65001
 neighbor NODE timers connect 1
 address-family ipv4 unicast
  neighbor NODE activate
`, "NODE", addr6("node").String())), frr(t, "frr2", config+strings.ReplaceAll(`
exit
exit
router bgp 64512
 neighbor NODE remote-as 65001
 neighbor NODE timers connect 1
 address-family ipv4 unicast
  neighbor NODE activate
`, "NODE", addr6("node").String()))
	if os.Getenv("INPROC") != "" {
		runtime.MemProfileRate = 2048
		defer func() {
			runtime.GC()
			f, _ := os.Create("/tmp/process-helper/mem/peers.pprof")
			pprof.WriteHeapProfile(f)
			f.Close()
		}()
		s := speak(t)
		s.desire(func(d *bgp.Desired) {
			d.Peers = []bgp.Peer{peer("a", addr4("frr")), peer("b", addr4("frr2")), peer("c", addr6("frr")), peer("d", addr6("frr2"))}
			for i := range d.Peers {
				d.Peers[i].IPv6 = false
			}
		})
		s.established("a", "b", "c", "d")
		s.desire(func(d *bgp.Desired) { d.Routes = hostRoutes(10000, "a", "b", "c", "d") })
		learns(t, keeps, false, 10000)
		learns(t, drops, false, 10000)
		time.Sleep(2*time.Second)
		return
	}
	c := startChild(t)
	all := []bgp.Peer{peer("a", addr4("frr")), peer("b", addr4("frr2")), peer("c", addr6("frr")), peer("d", addr6("frr2"))}
	for i := range all {
		all[i].IPv6 = false
	}
	fmt.Println("TEST PROCESS", rss(os.Getpid()))
	c.Sync(bgp.Desired{RouterID: addr4("node"), Peers: all[:1]})
	c.established()
	time.Sleep(2 * time.Second)
	fmt.Println("1 peer, no routes", rss(c.pid()))
	c.Sync(bgp.Desired{RouterID: addr4("node"), Peers: all})
	c.established()
	time.Sleep(2 * time.Second)
	fmt.Println("4 peers, no routes", rss(c.pid()))
	begin := time.Now()
	c.Sync(bgp.Desired{RouterID: addr4("node"), Peers: all, Routes: hostRoutes(10000, "a", "b", "c", "d")})
	learns(t, keeps, false, 10000)
	learns(t, drops, false, 10000)
	fmt.Println("took", time.Since(begin))
	fmt.Println("4 peers, 10000 routes", rss(c.pid()))
	time.Sleep(35 * time.Second)
	fmt.Println("later", rss(c.pid()))
	for i := range 20 {
		c.Sync(bgp.Desired{RouterID: addr4("node"), Peers: all, Routes: hostRoutes(10000-i-1, "a", "b", "c", "d")})
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(5 * time.Second)
	fmt.Println("after 20 withdrawals", rss(c.pid()))
	fmt.Println("TEST PROCESS", rss(os.Getpid()))
	fmt.Printf("%+v\n", c.Sessions())
}
