package peering

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/steelyard-lb/steelyard/pkg/bfd"
)

const (
	bfdChildEnv = "STEELYARD_PEERING_BFD" // a peer: the process has a session with it, and tells all changes
	burnEnv     = "STEELYARD_PEERING_BURN"
)

func init() {
	if os.Getenv(burnEnv) != "" {
		for {
			runtime.Gosched() // to nobody: the loop never rests
		}
	}
	if peer := os.Getenv(bfdChildEnv); peer != "" {
		s := bfd.New(bfd.Config{Changed: func(s bfd.Status) { fmt.Println(s.State, s.Failed, s.Diagnostic) }})
		s.Sync([]bfd.Session{steady(netip.MustParseAddr(peer))})
		s.Run(context.Background())
	}
}

// program starts this test's program anew, until the test ends.
func program(t *testing.T, env string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// TestBFDFrozen stops the process that has the session: for less than FRR waits, and for longer.
func TestBFDFrozen(t *testing.T) {
	f := frr(t, "frr", frrFast("192.0.2.11"))
	cmd, lines := program(t, bfdChildEnv+"=192.0.2.1")
	news := make(chan string, 1000)
	go func() {
		for lines.Scan() {
			news <- lines.Text()
		}
	}()
	agreed := func(p frrBFD) bool { return p.Status == "up" && p.RemoteTransmit == 100 }
	frrSays(t, f, "192.0.2.11", "up", agreed)
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	for len(news) > 0 {
		<-news
	}
	// Ten packets of FRR wait to be read after a second, of which a third is its detection time.
	signal(syscall.SIGSTOP)
	time.Sleep(time.Second)
	signal(syscall.SIGCONT)
	time.Sleep(500 * time.Millisecond)
	for len(news) > 0 {
		if n := <-news; !strings.HasPrefix(n, "Up") {
			t.Errorf("a process that was frozen says of its peer: %s", n)
		}
	}
	if p := frrPeers(t, f)["192.0.2.11"]; !agreed(p) {
		t.Errorf("FRR says %+v", p)
	}

	began := time.Now()
	signal(syscall.SIGSTOP)
	frrSays(t, f, "192.0.2.11", "down", func(p frrBFD) bool { return p.Status == "down" && p.Diagnostic == "control detection time expired" })
	if took := time.Since(began); took < time.Second || took > 6*time.Second {
		t.Errorf("FRR took %v to notice, of 20 times 100 ms", took)
	}
	signal(syscall.SIGCONT)
	frrSays(t, f, "192.0.2.11", "up again", agreed)
}

// TestBFDLoss loses a fifth of the packets, each way.
func TestBFDLoss(t *testing.T) {
	const rule = "udp dport 3784 numgen random mod 100 < 20 counter drop"
	f := frr(t, "frr", frrSession("192.0.2.11", 50, 12))
	filter(t, "node", "input", rule)
	filter(t, "frr", "input", rule)
	peer := addr4("frr")
	d := newDetector(t, bfd.Session{Peer: peer, Transmit: 50 * time.Millisecond, Receive: 50 * time.Millisecond, Multiplier: 12})
	d.up(peer)
	time.Sleep(3 * time.Second) // twelve in a row are lost once in two hundred million times
	if s := d.status(peer); s.State != bfd.Up || s.Downs > 0 {
		t.Errorf("we say %+v", s)
	}
	frrSays(t, f, "192.0.2.11", "up", frrUp)
	if out, err := on("node").Run(t.Context(), "nft", "list", "table", "inet", "bfd_input"); err != nil || strings.Contains(out, "packets 0 ") {
		t.Error("nothing was lost: ", out, err)
	}
}

// TestBFDBehindAFirewall: what this node's own rules drop is told, and ends nothing but the session.
func TestBFDBehindAFirewall(t *testing.T) {
	frr(t, "frr", frrSteady("192.0.2.11")+frrSteady("2001:db8:1::11 local-address 2001:db8:1::1"))
	d := newDetector(t, fast(addr4("frr")), steady(addr6("frr")))
	d.up(addr4("frr"), addr6("frr"))
	filter(t, "node", "output", "ip daddr 192.0.2.1 udp dport 3784 drop")
	eventually(t, "the firewall to be told of", func() error {
		if s := d.status(addr4("frr")); !s.Failed || !strings.Contains(s.LastError, "firewall") {
			return fmt.Errorf("we say %+v", s)
		}
		return nil
	})
	if s := d.status(addr6("frr")); s.State != bfd.Up || s.Downs > 0 {
		t.Errorf("the other session is %+v", s)
	}
}

// TestBFDBusy keeps all CPUs busy, from outside and, with work for the garbage collector, from inside of the process.
func TestBFDBusy(t *testing.T) {
	f := frr(t, "frr", frrSession("192.0.2.11", 300, 3))
	peer := addr4("frr")
	d := newDetector(t, bfd.Session{Peer: peer})
	d.up(peer)
	var burners sync.WaitGroup
	end := time.Now().Add(3 * time.Second)
	for range 2 {
		program(t, burnEnv+"=1")
		burners.Go(func() {
			var kept [1000][]string
			for i := 0; time.Now().Before(end); i++ {
				kept[i%len(kept)] = make([]string, 1000)
			}
		})
	}
	burners.Wait()
	if s := d.status(peer); s.State != bfd.Up || s.Downs > 0 {
		t.Errorf("we say %+v", s)
	}
	frrSays(t, f, "192.0.2.11", "up", frrUp)
}

// TestBFDStrangers: a router that nobody has asked, garbage from another machine, and garbage in our peer's name.
func TestBFDStrangers(t *testing.T) {
	f := frr(t, "frr", frrSteady("192.0.2.11"))
	frr(t, "frr2", frrSteady("192.0.2.11"))
	peer := addr4("frr")
	d := newDetector(t, steady(peer))
	d.up(peer)
	random := rand.New(rand.NewPCG(1, 2))
	for _, machine := range []string{"frr", "frr2", "bird"} {
		if err := on(machine).Do(func() error {
			c, err := net.Dial("udp4", "192.0.2.11:3784")
			if err != nil {
				return err
			}
			defer c.Close()
			if err := ipv4.NewConn(c).SetTTL(255); err != nil {
				return err
			}
			for i := range 3000 {
				b := make([]byte, random.IntN(60))
				for j := range b {
					b[j] = byte(random.Uint32())
				}
				if i%2 == 0 && len(b) >= 24 { // up to the discriminators it is right, but that we have not given out
					copy(b, []byte{1 << 5, 3 << 6, 3, 24, 0, 0, 0, 9})
				}
				if _, err := c.Write(b); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	if all := d.Statuses(); len(all) != 1 || all[0].State != bfd.Up || all[0].Downs > 0 {
		t.Errorf("we say %+v", all)
	}
	frrSays(t, f, "192.0.2.11", "up", frrUp)
}
