package place

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNode runs the test on a thread in a network namespace of its own, which has the interfaces eth0 and eth1 whose other ends are up. The
// commands are ip's arguments and run there, too.
func inNode(t *testing.T, commands []string, test func(t *testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare (these tests need root): %v", err)
			return
		}
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0); err != nil {
			t.Errorf("switch off duplicate address detection: %v", err)
			return
		}
		for _, c := range append([]string{
			"link set lo up",
			"link add eth0 type veth peer name far0", "link set far0 up", "link set eth0 up",
			"link add eth1 type veth peer name far1", "link set far1 up", "link set eth1 up",
		}, commands...) {
			if err := ip(c); err != nil {
				t.Error(err)
				return
			}
		}
		for _, name := range []string{"eth0", "eth1"} {
			if err := carrier(name); err != nil {
				t.Error(err)
				return
			}
		}
		test(t)
	}()
	<-done
}

func ip(arguments string) error {
	if output, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", arguments, err, output)
	}
	return nil
}

// patience is how long a test waits for what should take an instant, but may not on a busy machine.
const patience = 30 * time.Second

// carrier waits until the interface can carry packets: the kernel takes up to a second.
func carrier(name string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
	}
	return fmt.Errorf("interface %s has no carrier after %v", name, patience)
}
