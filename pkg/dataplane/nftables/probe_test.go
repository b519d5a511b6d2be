package nftables

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// A program without the permission is told which one it needs, and the way out.
func TestErrorNamesThePermission(t *testing.T) {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its capabilities
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData // the kernel reads two
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		_, err := New(Config{Mode: dataplane.Full, Log: slog.New(slog.DiscardHandler)})
		result <- err
	}()
	err := <-result
	if err == nil || !strings.Contains(err.Error(), "NET_ADMIN") || !strings.Contains(err.Error(), "--dataplane-backend=iptables") {
		t.Errorf("error %v; want one that names NET_ADMIN and --dataplane-backend=iptables", err)
	}
}

// Every feature that is looked for one by one is found where everything works, so that none is blamed for another's absence.
func TestEachFeatureIsFoundAlone(t *testing.T) {
	privateNet(t)
	b := newBackend(t, dataplane.Full)
	for _, f := range b.families {
		for _, feature := range f.features() {
			chains := []chain{{name: "probe", hook: feature.hook, rules: []rule{{exprs: feature.exprs}}}}
			if err := try(b.conn, f, dataplane.Full, dataplane.Host{}, func(t *table) { t.addChains(b.conn, chains) }); err != nil {
				t.Errorf("%s, %s: %v", f, feature.name, err)
			}
		}
	}
}
