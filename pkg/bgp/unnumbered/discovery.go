// Package unnumbered finds the router at the other end of a link, and lets it find this node, by router advertisements (RFC 4861), so that
// both can have a BGP session over a link without addresses of their own.
package unnumbered

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp/place"
)

// retryPause is how long an interface that could not be used is left alone, unless the kernel tells of a change.
const retryPause = time.Second

// Discovery advertises this node on interfaces and knows which router is there.
type Discovery struct {
	log     *slog.Logger
	wake    chan struct{}
	changed chan struct{}

	mu     sync.Mutex
	wanted []string
	peers  map[string]netip.Addr
	faults map[string]string

	// Of Run alone.
	ports    map[string]*port
	macs     map[string]net.HardwareAddr
	messages chan message
}

// New returns a Discovery that does nothing before Run.
func New(log *slog.Logger) *Discovery {
	return &Discovery{
		log: log, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), peers: map[string]netip.Addr{}, faults: map[string]string{},
		ports: map[string]*port{}, macs: map[string]net.HardwareAddr{}, messages: make(chan message),
	}
}

// Sync says on which interfaces routers are looked for. They need not exist yet.
func (d *Discovery) Sync(interfaces []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = slices.Clone(interfaces)
	notify(d.wake)
}

// Peers returns the link-local address, with its zone, of the router on each interface where one was heard.
func (d *Discovery) Peers() map[string]netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.peers)
}

// Faults says for each interface without a router why there is none.
func (d *Discovery) Faults() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.faults)
}

// Changed says that what Peers or Faults return may have changed.
func (d *Discovery) Changed() <-chan struct{} { return d.changed }

// Run advertises and listens until ctx is done.
func (d *Discovery) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	links, err := place.Watch(ctx)
	if err != nil {
		return fmt.Errorf("BGP over interfaces without addresses: %w", err)
	}
	defer func() {
		for name := range d.ports {
			d.close(name)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-links:
		case m := <-d.messages:
			d.heard(m)
		case <-timer.C:
		}
		timer.Reset(time.Until(d.work(ctx, time.Now())))
	}
}

// heard notes a message of a port that is still open.
func (d *Discovery) heard(m message) {
	switch {
	case d.ports[m.port.name] != m.port:
	case m.err != nil:
		d.log.Warn("Can't listen to routers any more; trying again.", "interface", m.port.name, "error", m.err)
		d.close(m.port.name)
	default:
		m.port.heard(time.Now(), m)
	}
}

// work opens and closes ports as interfaces come and go, sends what is due, and returns when it wants to be called again at the latest.
func (d *Discovery) work(ctx context.Context, now time.Time) (again time.Time) {
	d.mu.Lock()
	wanted := d.wanted
	d.mu.Unlock()
	for name := range d.ports {
		if !slices.Contains(wanted, name) {
			d.close(name)
		}
	}
	peers, faults := map[string]netip.Addr{}, map[string]string{}
	again = now.Add(time.Hour)
	for _, name := range wanted {
		p, err := d.port(ctx, name)
		if err != nil {
			faults[name] = err.Error()
			again = earlier(again, now.Add(retryPause))
			continue
		}
		err = p.advertise(now, d.macs[name])
		again = earlier(again, p.next)
		if router := p.hear.at(now); router.IsValid() {
			peers[name] = router
			again = earlier(again, p.hear.expires)
		} else if err != nil {
			faults[name] = fmt.Sprintf("can't send router advertisements on interface %s: %v", name, err)
		} else {
			faults[name] = fmt.Sprintf("no router has sent router advertisements on interface %s: switch them on at the other end", name)
		}
	}
	d.publish(peers, faults)
	return again
}

// port returns the interface's port, which it opens if the interface can be used and was not open as it is.
func (d *Discovery) port(ctx context.Context, name string) (*port, error) {
	ifi, err := net.InterfaceByName(name)
	switch {
	case err != nil:
		d.close(name)
		return nil, fmt.Errorf("this node has no interface %s", name)
	case ifi.Flags&net.FlagUp == 0:
		d.close(name)
		return nil, fmt.Errorf("interface %s is down", name)
	case ifi.Flags&net.FlagRunning == 0:
		d.close(name)
		return nil, fmt.Errorf("interface %s has no carrier: is the cable in, and the other end up?", name)
	}
	p := d.ports[name]
	if p != nil && (p.index != ifi.Index || !has(ifi, p.local)) {
		d.close(name)
		p = nil
	}
	if p == nil {
		if p, err = open(ctx, ifi, d.messages); err != nil {
			return nil, fmt.Errorf("interface %s: %w", name, err)
		}
		d.ports[name], d.macs[name] = p, ifi.HardwareAddr
	}
	return p, nil
}

func has(ifi *net.Interface, local netip.Addr) bool {
	all, err := ifi.Addrs()
	return err != nil || slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(local.AsSlice())
	})
}

func (d *Discovery) close(name string) {
	if p := d.ports[name]; p != nil {
		p.conn.Close()
		delete(d.ports, name)
		delete(d.macs, name)
	}
}

func (d *Discovery) publish(peers map[string]netip.Addr, faults map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, router := range peers {
		if d.peers[name] != router {
			d.log.Info("Found a router.", "interface", name, "router", router, "before", d.peers[name])
		}
	}
	for name, why := range faults {
		if d.faults[name] != why && d.peers[name].IsValid() {
			d.log.Warn("Lost a router.", "interface", name, "router", d.peers[name], "reason", why)
		}
	}
	if !maps.Equal(d.peers, peers) || !maps.Equal(d.faults, faults) {
		d.peers, d.faults = peers, faults
		notify(d.changed)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
