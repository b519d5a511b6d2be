package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// connect opens a connection to the load-balancer address from the network namespace of the thread. Closing it resets it, so that no port
// waits for late packets.
func connect() (fd int, took time.Duration, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 3) // give up after 15 s
	}
	begin := time.Now()
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(vip).As4(), Port: servicePort})
	}
	took = time.Since(begin)
	if err != nil {
		unix.Close(fd)
		return 0, 0, fmt.Errorf("connect to %s: %w", vip, err)
	}
	return fd, took, nil
}

// connectTime is the median of n connections, one after the other, in seconds.
func (s *site) connectTime(n int) (float64, error) {
	var times sample
	err := in(s.client, func() error {
		for range n {
			fd, took, err := connect()
			if err != nil {
				return err
			}
			unix.Close(fd)
			times = append(times, took.Seconds())
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.node, err)
	}
	return times.median(), nil
}

// connectionRate is how many connections a second four clients make.
func (s *site) connectionRate(period time.Duration) (float64, error) {
	var made atomic.Int64
	var clients errgroup.Group
	begin := time.Now()
	for range 4 {
		clients.Go(func() error {
			return in(s.client, func() error {
				for time.Since(begin) < period {
					fd, _, err := connect()
					if err != nil {
						return err
					}
					unix.Close(fd)
					made.Add(1)
				}
				return nil
			})
		})
	}
	if err := clients.Wait(); err != nil {
		return 0, fmt.Errorf("%s: %w", s.node, err)
	}
	return float64(made.Load()) / time.Since(begin).Seconds(), nil
}

// throughput is how many bytes a second one connection carries.
func (s *site) throughput(period time.Duration) (rate float64, err error) {
	err = in(s.client, func() error {
		fd, _, err := connect()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		sent, buffer := 0, make([]byte, 256<<10)
		begin := time.Now()
		for time.Since(begin) < period {
			n, err := unix.Write(fd, buffer)
			if err != nil {
				return err
			}
			sent += n
		}
		rate = float64(sent) / time.Since(begin).Seconds()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.node, err)
	}
	return rate, nil
}

// inTurns measures something of every site in each round, there and back, so that what else the machine does strikes all of them alike.
func inTurns(ctx context.Context, rounds int, sites []*site, measure func(*site) (float64, error)) ([]sample, error) {
	samples := make([]sample, len(sites))
	for round := range rounds {
		for i := range sites {
			if round%2 == 1 {
				i = len(sites) - 1 - i
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := measure(sites[i])
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], v)
		}
	}
	return samples, nil
}

func measureTraffic(ctx context.Context, s settings, columns []*column) error {
	var sites []*site
	for _, c := range columns {
		sites = append(sites, c.site)
	}
	fmt.Fprintln(os.Stderr, "traffic ...")
	connects, err := inTurns(ctx, s.traffic, sites, func(at *site) (float64, error) { return at.connectTime(100) })
	if err != nil {
		return err
	}
	rates, err := inTurns(ctx, s.traffic, sites, func(at *site) (float64, error) { return at.connectionRate(s.period) })
	if err != nil {
		return err
	}
	throughputs, err := inTurns(ctx, s.traffic, sites, func(at *site) (float64, error) { return at.throughput(s.period) })
	if err != nil {
		return err
	}
	for i, c := range columns {
		c.connect, c.rate, c.throughput = connects[i], rates[i], throughputs[i]
	}
	return nil
}

// measureFlatness compares connections through few Services with those through many.
func measureFlatness(ctx context.Context, s settings, self string) error {
	var sites []*site
	for _, n := range []int{10, s.flat} {
		at, err := newSite(fmt.Sprintf("flat-%d", n))
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "Steelyard in nftables: %d Services ...\n", n)
		p, err := at.start(ctx, []string{self, "agent", "nftables"})
		if err != nil {
			return err
		}
		load, err := p.fill(n, 0)
		if err != nil {
			return err
		}
		if err := p.end(); err != nil {
			return err
		}
		if n == s.flat {
			fmt.Printf("\nSteelyard in nftables, %d Services: full load %s\n", n, duration(load.Seconds()))
		}
		sites = append(sites, at)
	}
	times, err := inTurns(ctx, 2*s.traffic, sites, func(at *site) (float64, error) { return at.connectTime(100) })
	if err != nil {
		return err
	}
	fmt.Printf("Steelyard in nftables, time to connect: through 10 Services %s, through %d %s, ratio %.2f\n",
		duration(times[0].median()), s.flat, duration(times[1].median()), ratio(times[1], times[0]))
	return nil
}
