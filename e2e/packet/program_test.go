package packet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane/backend"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/engine"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

// runAgent is the agent's program. It ends when its standard input does.
func runAgent(config string) error {
	var s settings
	if err := json.Unmarshal([]byte(config), &s); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rules, err := backend.Open(s.Backend, s.Mode, "", log)
	if err != nil {
		return err
	}
	changes, err := monitor.Watch(context.Background(), log)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	reports := json.NewEncoder(os.Stdout)
	say := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		_ = reports.Encode(r)
	}
	e := engine.New(engine.Options{
		Config: s.Config, Backend: rules, BackendName: s.Backend, HealthzBind: s.Healthz, Changes: changes, Log: log,
		Events: func(service, reason, message string) { say(report{Event: service + " " + reason + " " + message}) },
	})
	failed := make(chan error, 1)
	go func() { failed <- e.Run(context.Background()) }()
	ended := make(chan error, 1)
	go func() { ended <- obey(e, say) }()
	select {
	case err := <-failed:
		return fmt.Errorf("the engine ended: %w", err)
	case err := <-ended:
		return err
	}
}

// obey carries out the orders on standard input. The first sync says that all that exists was told.
func obey(e *engine.Engine, say func(report)) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("order %q: %w", line, err)
		}
		switch {
		case o.Service != nil:
			e.SetService(o.Key, o.Service)
		case o.DeleteService:
			e.DeleteService(o.Key)
		case o.Slice != nil:
			e.SetSlice(o.Key, o.Slice)
		case o.DeleteSlice:
			e.DeleteSlice(o.Key)
		case o.Node != nil:
			e.SetNode(o.Node)
		case o.Served != nil:
			e.SetServed(func(a netip.Addr) bool {
				return slices.ContainsFunc(o.Served, func(p netip.Prefix) bool { return p.Contains(a) })
			})
		case o.Sync != 0:
			if o.Sync == 1 {
				e.Start()
			}
			for !e.Settled() {
				time.Sleep(time.Millisecond)
			}
			say(report{Synced: o.Sync})
		}
	}
}
