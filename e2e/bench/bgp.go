package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/router"
)

const routed = `apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: routed}
spec: {autoAssign: false, addresses: [198.19.0.0/16]}
---
apiVersion: steelyard.io/v1beta1
kind: BGPAdvertisement
metadata: {name: routed}
spec: {ipAddressPools: [routed]}
---
apiVersion: steelyard.io/v1beta1
kind: BGPPeer
metadata: {name: router}
spec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.1, connectTime: 1s, enableGracefulRestart: %t%s}
`

// withRouter runs f with FRR on the lab's router as the peer of all nodes.
func (b *bench) withRouter(ctx context.Context, bfd, graceful bool, f func(*router.FRR) error) error {
	config, objects, profile := b.RouterConfig(), "", ""
	if bfd {
		quick := fixture.BFD{Name: "quick", Interval: 100, Multiplier: 3}
		config = quick.RouterConfig() + b.RouterConfig(quick.Neighbour())
		objects, profile = quick.Manifest()+"---\n", ", bfdProfile: quick"
	}
	objects += fmt.Sprintf(routed, graceful, profile)
	r, err := b.StartRouter(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = r.Stop(context.WithoutCancel(ctx)) }()
	if err := b.Apply(ctx, objects); err != nil {
		return err
	}
	if err := f(r); err != nil {
		return err
	}
	return b.Remove(ctx, objects)
}

// nextHops looks at the router without a pause until its kernel has n next hops for a prefix.
func nextHops(ctx context.Context, r *router.FRR, prefix netip.Prefix, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		hops, err := r.NextHops(ctx, prefix)
		if err != nil || len(hops) == n {
			return err
		}
	}
}

// oneRoute measures how long a router waits for the route of a Service that is created or deleted, all steps in between included.
func (b *bench) oneRoute(ctx context.Context) error {
	return b.withRouter(ctx, false, false, func(r *router.FRR) error {
		var added, withdrawn sample
		for range b.rounds {
			s := service("one", "routed")
			began := time.Now()
			if err := b.Create(ctx, s); err != nil {
				return err
			}
			prefix := netip.MustParsePrefix("198.19.0.0/32")
			if err := nextHops(ctx, r, prefix, b.Nodes); err != nil {
				return err
			}
			added = append(added, time.Since(began))
			began = time.Now()
			if err := b.Delete(ctx, s); err != nil {
				return err
			}
			if err := nextHops(ctx, r, prefix, 0); err != nil {
				return err
			}
			withdrawn = append(withdrawn, time.Since(began))
		}
		fmt.Printf("BGP, a Service is created, until the router's kernel has all 3 next hops: %s\n", added[1:])
		fmt.Printf("BGP, it is deleted, until the route is gone: %s\n", withdrawn)
		return nil
	})
}

// deadNode measures how long a router goes on sending packets to a node that has lost power.
func (b *bench) deadNode(ctx context.Context) error {
	return b.withRouter(ctx, true, false, func(r *router.FRR) error {
		s := service("bfd", "routed")
		if err := b.Create(ctx, s); err != nil {
			return err
		}
		prefix := netip.MustParsePrefix("198.19.0.0/32")
		var gone sample
		for range b.rounds {
			if err := b.AwaitNextHops(ctx, r, prefix, "node-1", "node-2", "node-3"); err != nil {
				return err
			}
			// BFD is up a moment after BGP, and quick only once both sides have agreed on it.
			if err := b.WaitFor(ctx, "BFD", func(ctx context.Context) error { return r.BFDUp(ctx, b.Address("node-3", false)) }); err != nil {
				return err
			}
			began := time.Now()
			if err := b.Cut(ctx, "node-3"); err != nil {
				return err
			}
			if err := nextHops(ctx, r, prefix, b.Nodes-1); err != nil {
				return err
			}
			gone = append(gone, time.Since(began))
			if err := b.Mend(ctx, "node-3"); err != nil {
				return err
			}
		}
		fmt.Printf("BGP, a node loses power, until the router's next hop is gone (BFD 3 x 100 ms): %s\n", gone)
		return b.Delete(ctx, s)
	})
}

// speakerRestart measures how long a router waits for all routes of a node whose speaker is killed, and whether any is missing meanwhile.
func (b *bench) speakerRestart(ctx context.Context, services int) error {
	for i := range services {
		if err := b.Create(ctx, service(fmt.Sprintf("many-%d", i), "routed")); err != nil {
			return err
		}
	}
	node := b.Address("node-2", false)
	for _, graceful := range []bool{false, true} {
		if err := b.withRouter(ctx, false, graceful, func(r *router.FRR) error {
			all := func(ctx context.Context) error { return routesFrom(ctx, r, node, services) }
			if err := b.WaitFor(ctx, "all routes", all); err != nil {
				return err
			}
			pod, err := b.Pod(ctx, "speaker", "node-2")
			if err != nil {
				return err
			}
			began := time.Now()
			if err := host.KillPod(pod, "speaker", syscall.SIGKILL); err != nil {
				return err
			}
			fewest := services
			restarted := func(ctx context.Context) error {
				n, stale, err := count(ctx, r, node)
				if err != nil {
					return err
				}
				fewest = min(fewest, n)
				if n < services || stale > 0 || time.Since(began) < time.Second { // FRR needs a moment to notice
					return fmt.Errorf("%d routes, %d of them stale", n, stale)
				}
				return nil
			}
			if err := b.WaitFor(ctx, "all routes again", restarted); err != nil {
				return err
			}
			fmt.Printf("BGP, a speaker with %d Services is killed, graceful restart %t: all routes again and none stale after %s; meanwhile FRR had %d at least\n",
				services, graceful, ms(time.Since(began)), fewest)
			pid, err := host.PodProcess(pod, "bgpd")
			if err != nil {
				return err
			}
			kib, err := resident(pid)
			if err != nil {
				return err
			}
			fmt.Printf("memory of bgpd with %d Services and a peer: %.1f MB\n", services, float64(kib)/1024)
			return nil
		}); err != nil {
			return err
		}
	}
	for i := range services {
		if err := b.Delete(ctx, service(fmt.Sprintf("many-%d", i), "routed")); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

func count(ctx context.Context, r *router.FRR, from netip.Addr) (all, stale int, err error) {
	routes, err := r.Routes(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	for _, paths := range routes {
		for _, p := range paths {
			if p.From == from {
				all++
				if p.Stale {
					stale++
				}
			}
		}
	}
	return all, stale, nil
}

func routesFrom(ctx context.Context, r *router.FRR, from netip.Addr, want int) error {
	n, stale, err := count(ctx, r, from)
	if err == nil && (n != want || stale > 0) {
		err = fmt.Errorf("%d routes, %d of them stale", n, stale)
	}
	return err
}

// manyRoutes has the tests against routers measure what needs no cluster.
func manyRoutes(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "TestManyRoutes|TestMemory", "./e2e/peering")
	cmd.Stderr, cmd.Env = os.Stderr, append(os.Environ(), "STEELYARD_BENCH=yes")
	out, err := cmd.Output()
	for _, m := range regexp.MustCompile(`(?m)^\s*\S+_test\.go:\d+: (.*(routes?|memory).*)$`).FindAllStringSubmatch(string(out), -1) {
		fmt.Println("BGP, " + strings.TrimSpace(m[1]))
	}
	return err
}
