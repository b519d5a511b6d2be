// Bench/dataplane measures Steelyard's dataplane beside kube-proxy's own code, in iptables and in nftables: how long the rules of many
// Services take to load and to change, how much memory that takes, and how fast traffic goes through them. Each proxy runs on a node of its
// own, which is a network namespace, between a client and a server that are others.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/e2e/lab/build"
)

// settings say what is measured.
type settings struct {
	services int // of each proxy
	fewer    int // of kube-proxy in iptables mode
	flat     int // of the node that a connection's first packet takes no longer through
	rounds   int
	traffic  int           // rounds of each measurement of traffic
	period   time.Duration // of each such round
}

func main() {
	var s settings
	flag.IntVar(&s.services, "services", 10_000, "how many Services, of two endpoints each")
	flag.IntVar(&s.fewer, "kube-proxy-services", 5_000, "how many of them kube-proxy gets in iptables mode, where the time to load 10,000 is minutes")
	flag.IntVar(&s.flat, "flat", 30_000, "through how many Services a connection's first packet should take no longer than through 10")
	flag.IntVar(&s.rounds, "rounds", 10, "how often each change is measured")
	flag.IntVar(&s.traffic, "traffic-rounds", 100, "how often traffic is measured, in short turns of every proxy")
	flag.DurationVar(&s.period, "period", 100*time.Millisecond, "how long each turn is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case flag.Arg(0) == "agent":
		err = agent(flag.Arg(1))
	case flag.Arg(0) == "measure":
		if err = private(); err == nil {
			err = measure(ctx, s, flag.Arg(1))
		}
	default:
		err = isolate(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// isolate builds kube-proxy's side and runs this program again where its namespaces and rules are nobody else's.
func isolate(ctx context.Context) error {
	proxybench, err := build.ProxyBench(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(os.Args[1:], "measure", proxybench)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("measuring in namespaces of its own (it needs root): %w", err)
	}
	return nil
}

// private makes /run, where the network namespaces' names and iptables' lock are, this process's own.
func private() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

func measure(ctx context.Context, s settings, proxybench string) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	fmt.Printf("conditions: %d CPUs, kernel %s, Services of 2 endpoints each, IPv4; medians of %d changes and of %d turns of traffic\n\n",
		runtime.NumCPU(), unix.ByteSliceToString(name.Release[:]), s.rounds, s.traffic)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var columns []*column
	for _, c := range []*column{
		{proxy: "kube-proxy", backend: "iptables", services: min(s.fewer, s.services), program: []string{proxybench}},
		{proxy: "Steelyard", backend: "iptables", services: s.services, program: []string{self, "agent"}},
		{proxy: "kube-proxy", backend: "nftables", services: s.services, program: []string{proxybench}},
		{proxy: "Steelyard", backend: "nftables", services: s.services, program: []string{self, "agent"}},
	} {
		if err := c.measureRules(ctx, s.rounds); err != nil {
			return fmt.Errorf("%s in %s: %w", c.proxy, c.backend, err)
		}
		columns = append(columns, c)
	}
	if err := measureTraffic(ctx, s, columns); err != nil {
		return err
	}
	printTable(columns)
	return measureFlatness(ctx, s, self)
}

// column is what is measured of one proxy.
type column struct {
	proxy, backend string
	services       int
	program        []string
	site           *site

	load, addKernel, addEvent, changeKernel, changeEvent sample // seconds
	held, largest                                        sample // bytes
	connect                                              sample // seconds
	rate, throughput                                     sample // connections and bytes per second
}

// sample is what measuring one thing several times gave.
type sample []float64

func (s sample) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

// measureRules loads the Services and changes them. The rules stay for the traffic.
func (c *column) measureRules(ctx context.Context, rounds int) (err error) {
	if c.site, err = newSite(strings.ToLower(c.proxy) + "-" + c.backend); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s in %s: %d Services ...\n", c.proxy, c.backend, c.services)
	p, err := c.site.start(ctx, append(c.program, c.backend))
	if err != nil {
		return err
	}
	load, err := p.fill(c.services, rounds)
	if err != nil {
		return errors.Join(err, p.end())
	}
	c.load = sample{load.Seconds()}
	for i := range rounds {
		added, err := p.sync(order{Service: service(c.services+i, false)})
		if err != nil {
			return errors.Join(err, p.end())
		}
		c.addKernel, c.addEvent = append(c.addKernel, added.Kernel.Seconds()), append(c.addEvent, added.Event.Seconds())
		changed, err := p.sync(order{Slice: slice(i, 1, false)})
		if err != nil {
			return errors.Join(err, p.end())
		}
		c.changeKernel, c.changeEvent = append(c.changeKernel, changed.Kernel.Seconds()), append(c.changeEvent, changed.Event.Seconds())
	}
	held, err := p.memory()
	if err := errors.Join(err, p.end()); err != nil {
		return err
	}
	c.held, c.largest = sample{held}, sample{p.largest()}
	return nil
}
