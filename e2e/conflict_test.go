package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func TestForeignHostHoldsAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, pool("taken", lanRange(f, 160, 160)))
		addr := strings.Split(lanRange(f, 160, 160), "-")[0]
		bits := map[string]string{"IPv4": "/24", "IPv6": "/64"}[f.name]
		_, err := clientHost().Run(t.Context(), "ip", "addr", "add", addr+bits, "dev", "eth0")
		must(t, err)
		held := true
		release := func() {
			if held {
				held = false
				_, err := clientHost().Run(context.Background(), "ip", "addr", "del", addr+bits, "dev", "eth0")
				must(t, err)
			}
		}
		t.Cleanup(release)
		mac, err := clientHost().MAC("eth0")
		must(t, err)

		create(t, lbService("taken", f, fromPool("taken")))
		got := address(t, "taken")
		message := condition(t, "taken", v1beta1.ConditionAnnounced, metav1.ConditionFalse, "AddressConflict")
		if !strings.Contains(message, mac) || !strings.Contains(message, addr) {
			t.Errorf("the condition names neither %s nor %s: %s", addr, mac, message)
		}
		must(t, lab.WaitFor(t.Context(), "an Event about the conflict", func(ctx context.Context) error {
			n, err := events(ctx, "taken", "AddressConflict")
			if err == nil && n == 0 {
				err = fmt.Errorf("there is none")
			}
			return err
		}))
		// Nobody in the cluster answers for it, asked from a host that does not own it.
		if macs, err := lab.Host("router").WhoHas(got, "eth0", 300e6); err != nil || len(macs) != 1 || macs[0] != mac {
			t.Errorf("%v answer for %s (%v), want only the foreign host %s", macs, got, err, mac)
		}

		release()
		ctx, cancel := context.WithTimeout(t.Context(), 100e9)
		defer cancel()
		_, err = lab.AwaitOwner(ctx, got, nil)
		must(t, err)
		reach(t, clientHost(), "tcp", got)
		must(t, lab.WaitFor(t.Context(), "the condition to be mended", func(ctx context.Context) error {
			var s corev1.Service
			if err := lab.Get(ctx, key("default", "taken"), &s); err != nil {
				return err
			}
			for _, c := range s.Status.Conditions {
				if c.Type == v1beta1.ConditionAnnounced && c.Status == metav1.ConditionFalse {
					return fmt.Errorf("it still says: %s", c.Message)
				}
			}
			return nil
		}))
	})
}
