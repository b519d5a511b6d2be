package router

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// BIRD is a running BIRD 2.
type BIRD struct {
	Host   host.Host
	dir    string
	daemon *host.Daemon
}

// StartBIRD runs BIRD on a host with this configuration, as in bird.conf. It keeps its files in dir, which it makes.
func StartBIRD(ctx context.Context, h host.Host, dir, config string) (*BIRD, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b := &BIRD{Host: h, dir: dir}
	if err := os.WriteFile(b.file("bird.conf"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	var err error
	if b.daemon, err = h.Start(b.file("bird.log"), "/usr/sbin/bird", "-f", "-c", b.file("bird.conf"), "-s", b.file("bird.ctl"), "-P", b.file("bird.pid")); err != nil {
		return nil, err
	}
	for {
		if _, err := b.Birdc(ctx, "show status"); err == nil {
			return b, nil
		}
		select {
		case <-b.daemon.Done():
			log, _ := os.ReadFile(b.file("bird.log"))
			return nil, fmt.Errorf("%s ended at once: %w\n%s", b.daemon.Name, b.daemon.Err(), log)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (b *BIRD) file(name string) string { return filepath.Join(b.dir, name) }

// Daemon is BIRD's process.
func (b *BIRD) Daemon() *host.Daemon { return b.daemon }

// Stop kills BIRD.
func (b *BIRD) Stop(ctx context.Context) error { return b.daemon.Stop(ctx, syscall.SIGKILL) }

// Configure replaces the whole configuration.
func (b *BIRD) Configure(ctx context.Context, config string) error {
	if err := os.WriteFile(b.file("bird.conf"), []byte(config), 0o644); err != nil {
		return err
	}
	out, err := b.Birdc(ctx, "configure")
	if err == nil && !strings.Contains(out, "Reconfigur") {
		err = fmt.Errorf("BIRD on %s refuses its configuration: %s", b.Host.Name, out)
	}
	return err
}

// Birdc runs a command of BIRD's shell and returns what it printed.
func (b *BIRD) Birdc(ctx context.Context, command string) (string, error) {
	return b.Host.Run(ctx, append([]string{"birdc", "-s", b.file("bird.ctl")}, strings.Fields(command)...)...)
}

// Routes returns what BIRD has learned by BGP, of both families.
func (b *BIRD) Routes(ctx context.Context) (map[netip.Prefix][]Path, error) {
	out, err := b.Birdc(ctx, "show route all where source = RTS_BGP")
	if err != nil {
		return nil, err
	}
	routes := map[netip.Prefix][]Path{}
	var prefix netip.Prefix
	var path *Path
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if strings.Contains(line, " unicast ") {
			// Only the first path of a prefix says which.
			if p, err := netip.ParsePrefix(fields[0]); err == nil {
				prefix = p
			}
			routes[prefix] = append(routes[prefix], Path{Stale: strings.Contains(line, "s)")})
			path = &routes[prefix][len(routes[prefix])-1]
			continue
		}
		if path == nil {
			continue
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch {
		case fields[0] == "via" && len(fields) > 1:
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				path.NextHops = append(path.NextHops, a)
			}
		case key == "BGP.as_path":
			path.ASPath = value
		case key == "BGP.local_pref":
			path.LocalPref = number(value)
		case key == "BGP.med":
			path.MED = number(value)
		case key == "BGP.community" || key == "BGP.large_community" || key == "BGP.ext_community":
			for _, c := range strings.Split(value, ") (") {
				path.Communities = append(path.Communities, strings.ReplaceAll(strings.Trim(c, "()"), ",", ":"))
			}
			for i, c := range path.Communities {
				path.Communities[i] = strings.ReplaceAll(c, " ", "")
			}
			slices.Sort(path.Communities)
		}
	}
	return routes, nil
}

func number(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uint32(n)
}

// NextHops returns where the router's kernel sends packets for a prefix to, sorted.
func (b *BIRD) NextHops(ctx context.Context, prefix netip.Prefix) ([]netip.Addr, error) {
	return kernelNextHops(ctx, b.Host, prefix)
}
