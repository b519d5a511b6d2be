package rival

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// alone runs the rest of a test in a network and a mount namespace of its own, in a process of its own, because net/http dials on whatever thread
// it likes.
func alone(t *testing.T) bool {
	t.Helper()
	const inside = "STEELYARD_TEST_INSIDE"
	if os.Getenv(inside) == t.Name() {
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil { // iptables-legacy's lock is there
			t.Fatal(err)
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), inside+"="+t.Name())
	command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	out, err := command.CombinedOutput()
	if err != nil {
		t.Errorf("in a network namespace of its own (this needs root): %v\n%s", err, out)
	}
	return false
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// proxyRules are those of a kube-proxy, a kubelet and a CNI plugin, as few as there can be.
const proxyRules = `*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:CNI-HOSTPORT-SETMARK - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -p tcp --dport 8080 -j REDIRECT
-A KUBE-SERVICES -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ
COMMIT
`

const allTables = "nat mangle filter"

// restore loads rules with one variant of iptables.
func restore(t *testing.T, program, rules string) {
	t.Helper()
	command := exec.Command(program+"-restore", "--noflush")
	command.Stdin = strings.NewReader(rules)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s-restore: %v\n%s", program, err, out)
	}
}

func quick() *Finder { return &Finder{patience: 500 * time.Millisecond, tick: 20 * time.Millisecond} }

func lookFor(t *testing.T, f *Finder) Finding {
	t.Helper()
	found, err := f.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLookAtNothing(t *testing.T) {
	if !alone(t) {
		return
	}
	// A kubelet and a foreign table are nothing; an empty node is told at once, whatever the patience.
	restore(t, "iptables-nft", "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n")
	if diff := cmp.Diff(Finding{}, lookFor(t, &Finder{patience: time.Hour, tick: time.Hour})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if names, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && len(names) > 0 {
		t.Errorf("looking made legacy tables: %s", names)
	}
}

func TestLookAtListeners(t *testing.T) {
	if !alone(t) {
		return
	}
	const health = `{"lastUpdated":"2026-01-01T00:00:00Z","currentTime":"2026-01-01T00:00:01Z","nodeEligible":true}`
	for _, c := range []struct {
		name, listen, body, server string
		status                     int
		want                       Finding
	}{
		{name: "kube-proxy's mode", listen: "127.0.0.1:10249", body: "ipvs", status: 200,
			want: Finding{Alive: true, Kind: KubeProxyIPVS, Evidence: `127.0.0.1:10249 answers to /proxyMode with "ipvs"`}},
		{name: "an unhealthy proxy", listen: "[::]:10256", body: health, status: 503,
			want: Finding{Alive: true, Kind: Unknown, Evidence: "[::]:10256 answers to /healthz as service proxies do, but there are no rules of a known one"}},
		{name: "we ourselves", listen: "0.0.0.0:10256", body: health, status: 200, server: Signature},
		{name: "another program", listen: "[::1]:10249", body: "<html>", status: 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket, err := net.Listen("tcp", c.listen)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.server != "" {
					w.Header().Set("Server", c.server)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})}
			go server.Serve(socket)
			defer server.Close()
			if diff := cmp.Diff(c.want, lookFor(t, quick())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLookAtRules(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		t.Run(program, func(t *testing.T) {
			restore(t, program, proxyRules)
			defer sh(t, fmt.Sprintf("for t in %s; do %s -t $t -F; %s -t $t -X; done", allTables, program, program))
			before := sh(t, program+"-save -t nat | grep -v '^[#:]'")

			found := lookFor(t, quick())
			want := []string{"chain KUBE-SERVICES in table nat of " + program}
			if diff := cmp.Diff(want, found.Leftovers); diff != "" || found.Alive || found.Kind != KubeProxyIPTables {
				t.Errorf("leftovers, -want +got:\n%s%+v", diff, found)
			}
			if diff := cmp.Diff(before, sh(t, program+"-save -t nat | grep -v '^[#:]'")); diff != "" {
				t.Errorf("the rules are not as before, -want +got:\n%s", diff)
			}

			// A proxy whose listeners are elsewhere makes its canary again ...
			sh(t, program+" -t mangle -N "+canary)
			found = lookWhile(t, func() { exec.Command(program, "-t", "mangle", "-N", canary).Run() })
			if !found.Alive || !strings.Contains(found.Evidence, canary) {
				t.Errorf("with a canary that comes back: %+v", found)
			}
			sh(t, program+" -t mangle -X "+canary)

			// ... and one in ipvs mode writes its rules again.
			found = lookWhile(t, func() { restoreQuietly(program, "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n") })
			if !found.Alive || !strings.Contains(found.Evidence, servicesChain) {
				t.Errorf("with rules that are written again: %+v", found)
			}

			// Our own chains are no rival's.
			sh(t, program+" -t nat -N "+ownerChain)
			if found := lookFor(t, quick()); found.Kind != "" {
				t.Errorf("with chains of our own: %+v", found)
			}
		})
	}
}

func TestLookAtTables(t *testing.T) {
	if !alone(t) {
		return
	}
	sh(t, "nft add table ip kube-proxy; nft add chain ip kube-proxy services")
	want := Finding{Kind: KubeProxyNFTables, Evidence: "no proxy listens, and in 500ms nobody repaired the rules", Leftovers: []string{"nftables table ip kube-proxy"}}
	if diff := cmp.Diff(want, lookFor(t, quick())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	found := lookWhile(t, func() { exec.Command("nft", "add", "rule", "ip", "kube-proxy", "services", "accept").Run() })
	want = Finding{Alive: true, Kind: KubeProxyNFTables, Evidence: "program nft changed nftables table kube-proxy, which only kube-proxy does"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("while somebody changes the table, -want +got:\n%s", diff)
	}
	// Somebody who removes the table is cleaning up.
	removed := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() { removed <- exec.Command("nft", "delete", "table", "ip", "kube-proxy").Run() })
	if found := lookFor(t, quick()); found.Alive {
		t.Errorf("while somebody removes the table: %+v", found)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
}

// lookWhile looks while a proxy repairs what was disturbed, with patience that does not end before it did.
func lookWhile(t *testing.T, repair func()) Finding {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
				repair()
			}
		}
	}()
	found := lookFor(t, &Finder{patience: time.Minute, tick: 20 * time.Millisecond})
	cancel()
	<-ended
	return found
}

func restoreQuietly(program, rules string) {
	command := exec.Command(program+"-restore", "--noflush")
	command.Stdin = strings.NewReader(rules)
	command.Run() // what came of it is seen by Look
}

func TestClean(t *testing.T) {
	if !alone(t) {
		return
	}
	programs := []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"}
	for _, program := range programs {
		restore(t, program, proxyRules)
	}
	sh(t, "nft add table ip kube-proxy; nft add chain ip kube-proxy services; nft add table ip6 kube-proxy; nft add table inet firewalld")
	sh(t, "ip link add "+ipvsLink+" type bridge") // a dummy interface where the kernel has those; only the name matters

	if err := clean(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for _, program := range programs {
		got := sh(t, fmt.Sprintf("for t in %s; do %s-save -t $t 2>/dev/null; done | grep -E '^(-A|:.* -)' | sed 's/ - .*//'", allTables, program))
		want := `:CNI-HOSTPORT-SETMARK
:KUBE-KUBELET-CANARY
:KUBE-MARK-MASQ
-A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT
-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
:KUBE-IPTABLES-HINT
:KUBE-KUBELET-CANARY
:KUBE-FIREWALL
:KUBE-KUBELET-CANARY
-A INPUT -j KUBE-FIREWALL
`
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, -want +got:\n%s", program, diff)
		}
	}
	if got := sh(t, "nft list tables | grep -v -E ' (nat|mangle|filter)$'"); got != "table inet firewalld\n" {
		t.Errorf("nftables tables that are left: %s", got)
	}
	if diff := cmp.Diff(Finding{}, lookFor(t, quick())); diff != "" {
		t.Errorf("after the cleanup, -want +got:\n%s", diff)
	}
}

func TestCleanNamesWhatItCannotRead(t *testing.T) {
	if !alone(t) {
		return
	}
	restore(t, "iptables-nft", proxyRules)
	sh(t, "nft add chain ip nat others; nft add rule ip nat others numgen random mod 2 vmap '{ 0 : accept }'")
	err := clean(t.Context(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "iptables-nft cannot read table nat") {
		t.Errorf("error %v, want one that names the program and the table", err)
	}
	if got := sh(t, "iptables-nft-save -t filter; iptables-nft-save -t mangle"); strings.Contains(got, canary) {
		t.Errorf("tables that can be read were left alone:\n%s", got)
	}
}

func TestCleanRefusesBesideAProxy(t *testing.T) {
	if !alone(t) {
		return
	}
	restore(t, "iptables-nft", proxyRules)
	before := sh(t, "iptables-nft-save | grep -v '^#'")
	socket, err := net.Listen("tcp", "127.0.0.1:10249")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "iptables") })}
	go server.Serve(socket)
	defer server.Close()

	err = CleanKubeProxy(t.Context(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), KubeProxyIPTables) {
		t.Errorf("error %v, want one that names %s", err, KubeProxyIPTables)
	}
	if diff := cmp.Diff(before, sh(t, "iptables-nft-save | grep -v '^#'")); diff != "" {
		t.Errorf("rules were changed, -want +got:\n%s", diff)
	}
}
