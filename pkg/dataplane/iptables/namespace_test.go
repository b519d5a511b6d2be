package iptables

import (
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// isolate gives the test a thread with a network of its own, and a /run for the lock of legacy iptables. It needs root.
func isolate(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatalf("unshare (these tests need root): %v", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

func newBackend(t testing.TB, mode dataplane.Mode) *Backend {
	t.Helper()
	b, err := New(Config{Mode: mode, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sync(t testing.TB, b *Backend, m *dataplane.Model, changed ...string) {
	t.Helper()
	if err := b.Sync(t.Context(), m, changed); err != nil {
		t.Fatal(err)
	}
}

// command runs a program in the test's namespaces and returns its output.
func command(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// saved is all that iptables-save prints of a table, without what changes from call to call.
func saved(t testing.TB, program string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(command(t, program)) {
		if strings.HasPrefix(line, ":") {
			line, _, _ = strings.Cut(line, " [")
			line += "\n"
		}
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
