package iptables

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// servers listen on the loopback and say who they are.
func servers(t *testing.T, addrs ...string) {
	t.Helper()
	command(t, "ip route add local 10.8.0.0/16 dev lo; ip route add local 10.9.0.0/16 dev lo; ip route add default dev lo")
	for _, a := range addrs {
		l, err := net.Listen("tcp4", a)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.Write([]byte(a))
				conn.Close()
			}
		}()
	}
}

// ask connects to the Service from a client's address and returns who answers.
func ask(t *testing.T, client netip.Addr) string {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0)), Timeout: 10 * time.Second}
	// A context that cannot end, so that the dialer stays on this thread, which is in the right namespace.
	conn, err := d.DialContext(context.Background(), "tcp4", "10.109.220.13:80")
	if err != nil {
		t.Fatalf("client %s: %v", client, err)
	}
	defer conn.Close()
	name := make([]byte, 64)
	n, _ := conn.Read(name)
	return string(name[:n])
}

func client(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }

// Session affinity holds for more than the 100 clients of xt_recent, ends at once with the endpoint, and ends with the time.
func TestAffinity(t *testing.T) {
	const clients = 300
	isolate(t)
	a, b := "10.8.0.1:8080", "10.8.0.2:8080"
	servers(t, a, b)
	backend := newBackend(t, dataplane.Full)
	service := func(endpoints string, affinity time.Duration) *dataplane.Model {
		p := nginx(endpoints)
		p.Affinity = affinity
		m := model(p)
		m.Host.PodCIDRs = nil
		return m
	}
	sync(t, backend, service(a+" "+b, time.Hour))
	bound := map[netip.Addr]string{}
	count := map[string]int{}
	for i := range clients {
		bound[client(i)] = ask(t, client(i))
		count[bound[client(i)]]++
	}
	if count[a] < clients/4 || count[b] < clients/4 || count[a]+count[b] != clients {
		t.Errorf("the clients are bound to %v", count)
	}
	stick := func(when string) {
		t.Helper()
		for i := range clients {
			if got, want := ask(t, client(i)), bound[client(i)]; got != want {
				t.Fatalf("%s, client %d comes to %q, not to %q", when, i, got, want)
			}
		}
	}
	stick("at the second time")
	sync(t, newBackend(t, dataplane.Full), service(a+" "+b, time.Hour))
	stick("after a restart")
	sync(t, backend, service(a+" "+b+" 10.8.0.3:8080", time.Hour), "default/nginx-service")
	stick("with one endpoint more")

	sync(t, backend, service(b, time.Hour), "default/nginx-service")
	for i := range clients {
		bound[client(i)] = b
	}
	stick("with one endpoint left")
	sync(t, backend, service(a+" "+b, time.Hour), "default/nginx-service")
	stick("when an endpoint is back that it once had")

	sync(t, backend, service(a+" "+b, 0), "default/nginx-service")
	moved := 0
	for i := range clients {
		if ask(t, client(i)) == a {
			moved++
		}
	}
	if moved < clients/4 {
		t.Errorf("without affinity only %d of %d clients moved", moved, clients)
	}

	sync(t, backend, service(a+" "+b, time.Second), "default/nginx-service")
	await(t, "a client is bound", func() bool { ask(t, client(1)); return entries(t) > 0 })
	await(t, "it is free after a second", func() bool { return entries(t) == 0 })
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s it is still not so that %s", what)
		}
	}
}

// entries counts the bound clients of all sets.
func entries(t *testing.T) int {
	t.Helper()
	sets, err := netlink.IpsetListAll()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, set := range sets {
		n += len(set.Entries)
	}
	return n
}

// A set that a rule still refers to is emptied at least, and deleted later.
func TestBusySet(t *testing.T) {
	isolate(t)
	name := setPrefix + "X"
	if err := makeSet(name, dataplane.IPv4); err != nil {
		t.Fatal(err)
	}
	command(t, "iptables -A INPUT -m set --match-set "+name+" src -j DROP")
	busy, err := retireSets([]string{name, setPrefix + "MISSING"})
	if err != nil || len(busy) != 1 || busy[0] != name {
		t.Fatalf("while a rule refers to it: busy %v, error %v", busy, err)
	}
	command(t, "iptables -F INPUT")
	if err := removeSets(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, err := listSets(); err != nil || len(names) > 0 {
		t.Errorf("still there: %v, error %v", names, err)
	}
}
