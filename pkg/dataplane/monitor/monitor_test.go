package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// watch starts in a network namespace of the test's own. Its thread ends with the test, since it stays locked.
func watch(t *testing.T) <-chan Change {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace of its own: %v (the test needs root)", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := Watch(ctx, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		for range changes { // until it is closed
		}
	})
	return changes
}

func nft(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, script)
	}
}

// await returns the first change that holds.
func await(t *testing.T, changes <-chan Change, what string, holds func(Change) bool) Change {
	t.Helper()
	late := time.After(20 * time.Second)
	var seen []Change
	for {
		select {
		case c := <-changes:
			if seen = append(seen, c); holds(c) {
				return c
			}
		case <-late:
			t.Fatalf("no %s among %+v", what, seen)
		}
	}
}

func TestChangesOfOneTransactionComeByTable(t *testing.T) {
	changes := watch(t)
	nft(t, `table ip one { chain a { }; chain b { }; }
		add rule ip one a accept
		add rule ip one b accept
		table ip6 two { set s { type ipv6_addr; elements = { ::1 }; }; }
		table inet three { }`)
	got := map[string]Change{}
	for len(got) < 3 {
		c := await(t, changes, "change", func(Change) bool { return true })
		got[c.Table] = c
	}
	for table, family := range map[string]dataplane.Family{"one": dataplane.IPv4, "two": dataplane.IPv6, "three": 0} {
		c := got[table]
		if c.Family != family || c.Program != "nft" || c.PID == 0 || c.Gone || c.Lost {
			t.Errorf("table %s: %+v; want family %d, made by nft", table, c, family)
		}
	}
	if chains := slices.Compact(slices.Sorted(slices.Values(got["one"].Chains))); !slices.Equal(chains, []string{"a", "b"}) {
		t.Errorf("chains %v, want a and b", chains)
	}
}

func TestATableThatGoes(t *testing.T) {
	changes := watch(t)
	nft(t, "table ip one { chain a { }; }")
	nft(t, "delete table ip one\ntable ip one { }")
	nft(t, "delete table ip one")
	for i, gone := range []bool{false, false, true} {
		if c := await(t, changes, "change", func(Change) bool { return true }); c.Table != "one" || c.Gone != gone {
			t.Errorf("change %d is %+v, want gone=%t", i, c, gone)
		}
	}
}

func TestIptablesIsSeen(t *testing.T) {
	changes := watch(t)
	if out, err := exec.Command("iptables-nft", "-t", "nat", "-N", "KUBE-PROXY-CANARY").CombinedOutput(); err != nil {
		t.Fatalf("iptables-nft: %v\n%s", err, out)
	}
	c := await(t, changes, "change of table nat", func(c Change) bool { return c.Table == "nat" })
	if !slices.Contains(c.Chains, "KUBE-PROXY-CANARY") || !strings.HasPrefix(c.Program, "iptables") {
		t.Errorf("change is %+v", c)
	}
}

func TestAnOverrunIsToldAndNotTheEnd(t *testing.T) {
	changes := watch(t)
	var script strings.Builder
	script.WriteString("table ip many { set s { type ipv4_addr; elements = {\n")
	for i := range 60_000 {
		fmt.Fprintf(&script, "10.%d.%d.%d,\n", i>>16, i>>8&255, i&255)
	}
	script.WriteString("}\n}\n}\n")
	for _, name := range []string{"a", "b", "c"} { // nobody reads, so that the first one is still being read into when the others come
		nft(t, strings.Replace(script.String(), "many", name, 1))
	}
	await(t, changes, "overrun", func(c Change) bool { return c.Lost })
	for i := 0; ; i++ { // what is still in the buffer may make this overrun too
		after := fmt.Sprintf("after-%d", i)
		nft(t, "table ip "+after+" { }")
		if c := await(t, changes, "change after the overrun", func(c Change) bool { return c.Table == after || c.Lost }); !c.Lost {
			break
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(uint8(unix.NFT_MSG_NEWCHAIN), []byte{2, 0, 0, 0, 8, 0, 1, 0, 'n', 'a', 't', 0, 6, 0, 3, 0, 'a', 0, 0, 0})
	f.Add(uint8(unix.NFT_MSG_NEWGEN), []byte{0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		var open transaction
		m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | int(kind))}, Data: data}
		if kind != unix.NFT_MSG_NEWGEN && len(open.add(m)) > 0 {
			t.Error("a change is complete before its transaction is")
		}
		open.add(m)
	})
}
