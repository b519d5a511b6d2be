// Package router runs real routers, FRR and BIRD, on a lab's machines, and reads from them what they learned.
package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// FRR is a running FRR: zebra, bgpd and bfdd.
type FRR struct {
	Host    host.Host
	dir     string // sockets, pid files, logs
	daemons map[string]*host.Daemon
}

// frrDaemons are started in this order.
var frrDaemons = []string{"zebra", "bgpd", "bfdd"}

// StartFRR runs FRR on a host with this configuration, as in frr.conf. It keeps its files in dir, which it makes.
func StartFRR(ctx context.Context, h host.Host, dir, config string) (*FRR, error) {
	// FRR gives up root, so the folder must be its own.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := chown(dir, "frr"); err != nil {
		return nil, err
	}
	f := &FRR{Host: h, dir: dir, daemons: map[string]*host.Daemon{}}
	for _, name := range frrDaemons {
		if err := f.Start(ctx, name); err != nil {
			return nil, errors.Join(err, f.Stop(ctx))
		}
	}
	if err := f.Configure(ctx, config); err != nil {
		return nil, errors.Join(err, f.Stop(ctx))
	}
	return f, nil
}

func chown(path, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("FRR is to run as user %s: %w", name, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

func (f *FRR) file(name string) string { return filepath.Join(f.dir, name) }

// Start runs one of FRR's daemons, without configuration, and waits until it can be configured.
func (f *FRR) Start(ctx context.Context, name string) error {
	socket := f.file(name + ".vty")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	args := []string{"/usr/lib/frr/" + name, "-u", "frr", "-g", "frr", "-f", "/dev/null", "-i", f.file(name + ".pid"),
		"-z", f.file("zserv.api"), "--vty_socket", f.dir, "-P", "0"}
	if name == "bfdd" {
		args = append(args, "--bfdctl", f.file("bfdd.sock"))
	}
	d, err := f.Host.Start(f.file(name+".log"), args...)
	if err != nil {
		return err
	}
	f.daemons[name] = d
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-d.Done():
			log, _ := os.ReadFile(f.file(name + ".log"))
			return fmt.Errorf("%s ended at once: %w\n%s", d.Name, d.Err(), log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not start: %w", d.Name, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Daemon returns one of FRR's daemons: zebra, bgpd or bfdd.
func (f *FRR) Daemon(name string) *host.Daemon { return f.daemons[name] }

// Stop kills FRR.
func (f *FRR) Stop(ctx context.Context) error {
	var errs []error
	for _, d := range f.daemons {
		errs = append(errs, d.Stop(ctx, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// Configure adds lines of configuration, as they stand in frr.conf.
func (f *FRR) Configure(ctx context.Context, config string) error {
	file := f.file("change.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	out, err := f.vtysh(ctx, "-f", file)
	if err == nil && strings.Contains(out, "%") {
		err = fmt.Errorf("FRR on %s refuses a line: %s", f.Host.Name, out)
	}
	return err
}

// Vtysh runs commands of FRR's shell one after the other, and returns what they printed.
func (f *FRR) Vtysh(ctx context.Context, commands ...string) (string, error) {
	var args []string
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return f.vtysh(ctx, args...)
}

func (f *FRR) vtysh(ctx context.Context, args ...string) (string, error) {
	return f.Host.Run(ctx, append([]string{"vtysh", "--vty_socket", f.dir, "--config_dir", f.dir}, args...)...)
}

// JSON runs a command that prints JSON and reads it into v.
func (f *FRR) JSON(ctx context.Context, command string, v any) error {
	out, err := f.Vtysh(ctx, command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("FRR on %s: %s: %w: %s", f.Host.Name, command, err, out)
	}
	return nil
}

// Path is a way to a prefix that a router learned.
type Path struct {
	From      netip.Addr // the neighbour that told; of link-local ones without a zone
	NextHops  []netip.Addr
	ASPath    string
	LocalPref uint32
	MED       uint32
	// Communities are of all kinds, in the router's words, sorted.
	Communities []string
	Stale       bool // kept while the neighbour restarts
}

func family(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}

// Routes returns what FRR has learned of a family, without the communities.
func (f *FRR) Routes(ctx context.Context, v6 bool) (map[netip.Prefix][]Path, error) {
	var table struct {
		Routes map[netip.Prefix][]frrPath `json:"routes"`
	}
	if err := f.JSON(ctx, "show bgp "+family(v6)+" unicast json", &table); err != nil {
		return nil, err
	}
	routes := map[netip.Prefix][]Path{}
	for prefix, paths := range table.Routes {
		for _, p := range paths {
			routes[prefix] = append(routes[prefix], p.path())
		}
	}
	return routes, nil
}

// Route returns what FRR has learned of one prefix, with everything; nil if nothing.
func (f *FRR) Route(ctx context.Context, prefix netip.Prefix) ([]Path, error) {
	var route struct {
		Paths []frrDetail `json:"paths"`
	}
	if err := f.JSON(ctx, fmt.Sprintf("show bgp %s unicast %s json", family(prefix.Addr().Is6()), prefix), &route); err != nil {
		return nil, err
	}
	var paths []Path
	for _, p := range route.Paths {
		paths = append(paths, p.path())
	}
	return paths, nil
}

// NextHops returns where the router's kernel sends packets for a prefix to, sorted.
func (f *FRR) NextHops(ctx context.Context, prefix netip.Prefix) ([]netip.Addr, error) {
	return kernelNextHops(ctx, f.Host, prefix)
}

// BFDUp succeeds if FRR's BFD session with a peer is up, at the intervals that both sides have agreed on and not at the slow ones that
// a session begins with.
func (f *FRR) BFDUp(ctx context.Context, peer netip.Addr) error {
	var sessions []struct {
		Peer     netip.Addr `json:"peer"`
		Status   string     `json:"status"`
		Interval int        `json:"remote-transmit-interval"`
	}
	if err := f.JSON(ctx, "show bfd peers json", &sessions); err != nil {
		return err
	}
	for _, s := range sessions {
		if s.Peer == peer && s.Status == "up" && s.Interval < 1000 {
			return nil
		}
	}
	return fmt.Errorf("FRR has the BFD sessions %+v", sessions)
}

type frrHop struct {
	IP    netip.Addr `json:"ip"`
	Scope string     `json:"scope"`
}

// frrPath is an entry of the whole table, frrDetail one of a single prefix: FRR 8 names and nests things differently.
type frrPath struct {
	PeerID    string   `json:"peerId"`
	Path      string   `json:"path"`
	LocalPref uint32   `json:"locPrf"`
	Metric    uint32   `json:"metric"`
	Stale     bool     `json:"stale"`
	NextHops  []frrHop `json:"nexthops"`
}

func (p frrPath) path() Path {
	out := Path{ASPath: p.Path, LocalPref: p.LocalPref, MED: p.Metric, Stale: p.Stale, From: withoutZone(p.PeerID)}
	for _, h := range p.NextHops {
		out.NextHops = append(out.NextHops, h.IP)
	}
	return out
}

type frrDetail struct {
	ASPath    struct{ String string } `json:"aspath"`
	LocalPref uint32                  `json:"locPrf"`
	Metric    uint32                  `json:"metric"`
	Stale     bool                    `json:"stale"`
	NextHops  []frrHop                `json:"nexthops"`
	Peer      struct {
		PeerID string `json:"peerId"`
	} `json:"peer"`
	Community         struct{ String string } `json:"community"`
	LargeCommunity    struct{ String string } `json:"largeCommunity"`
	ExtendedCommunity struct{ String string } `json:"extendedCommunity"`
}

func (p frrDetail) path() Path {
	out := frrPath{PeerID: p.Peer.PeerID, Path: p.ASPath.String, LocalPref: p.LocalPref, Metric: p.Metric, Stale: p.Stale, NextHops: p.NextHops}.path()
	for _, text := range []string{p.Community.String, p.LargeCommunity.String, p.ExtendedCommunity.String} {
		out.Communities = append(out.Communities, strings.Fields(text)...)
	}
	return out
}

func withoutZone(text string) netip.Addr {
	a, _ := netip.ParseAddr(text) // FRR writes link-local neighbours with their interface
	return a.WithZone("")
}
