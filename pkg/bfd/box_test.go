package bfd

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// box is a network namespace with a cable, eth0, to another.
type box struct {
	t  *testing.T
	ns netns.NsHandle
}

// do runs f on a thread in the namespace.
func (b *box) do(f func() error) {
	b.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := netns.Set(b.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.t.Fatal(err)
	}
}

// newBoxes returns two machines: the first has 192.0.2.11, 2001:db8::11 and fe80::11, the second those that end in 1.
func newBoxes(t *testing.T) (here, there *box) {
	t.Helper()
	boxes := []*box{{t: t}, {t: t}}
	for _, b := range boxes {
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			var err error
			b.ns, err = netns.New()
			done <- err
		}()
		if err := <-done; err != nil {
			t.Fatalf("these tests need root: %v", err)
		}
		t.Cleanup(func() { b.ns.Close() })
	}
	cable(t, boxes[0], boxes[1])
	return boxes[0], boxes[1]
}

func cable(t *testing.T, here, there *box) {
	t.Helper()
	here.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(there.ns)})
	})
	for b, host := range map[*box]string{here: "11", there: "1"} {
		b.do(func() error {
			for _, name := range []string{"lo", "eth0"} {
				// The only link-local address is to be the one below.
				err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", []byte("1"), 0)
				if err != nil {
					return err
				}
				link, err := netlink.LinkByName(name)
				if err == nil {
					err = netlink.LinkSetUp(link)
				}
				if err != nil {
					return err
				}
				if name == "lo" {
					continue
				}
				for _, a := range []string{"192.0.2." + host + "/24", "2001:db8::" + host + "/64", "fe80::" + host + "/64"} {
					addr, err := netlink.ParseAddr(a)
					if err != nil {
						return err
					}
					addr.Flags = unix.IFA_F_NODAD
					if addr.IP.To4() != nil {
						addr.Flags = 0
					}
					if err := netlink.AddrAdd(link, addr); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}

// speak runs a Speaker in the namespace until the test ends.
func (b *box) speak(sessions ...Session) *Speaker {
	s := New(Config{Log: logTo(b.t)})
	s.Sync(sessions)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := errors.Join(netns.Set(b.ns), s.Run(ctx)); err != nil {
			b.t.Error(err)
		}
	}()
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}
