package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/backend"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/engine"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

// quiet is longer than the engine waits between two syncs, so that it takes the next change at once.
const quiet = 300 * time.Millisecond

// clocked is a Backend that knows how long the last Sync took, and when it ended.
type clocked struct {
	dataplane.Backend
	mu   sync.Mutex
	took time.Duration
	end  time.Time
}

func (c *clocked) Sync(ctx context.Context, m *dataplane.Model, changed []string) error {
	begin := time.Now()
	err := c.Backend.Sync(ctx, m, changed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = time.Now()
	c.took = c.end.Sub(begin)
	return err
}

// agent carries out orders as the speaker's dataplane does, until standard input ends.
func agent(name string) error {
	debug.SetGCPercent(50) // as the speaker does
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := backend.Open(name, dataplane.Full, "", log)
	if err != nil {
		return err
	}
	changes, err := monitor.Watch(context.Background(), log)
	if err != nil {
		return err
	}
	clock := &clocked{Backend: b}
	e := engine.New(engine.Options{
		Config:  dataplane.Config{Mode: dataplane.Full, Node: nodeName, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(podCIDR)}},
		Backend: clock, BackendName: name, Changes: changes, Log: log,
	})
	failed := make(chan error, 1)
	go func() { failed <- e.Run(context.Background()) }()
	ended := make(chan error, 1)
	go func() { ended <- obey(e, clock) }()
	select {
	case err := <-failed:
		return fmt.Errorf("the engine ended: %w", err)
	case err := <-ended:
		return err
	}
}

func obey(e *engine.Engine, clock *clocked) error {
	orders, reports := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	started := false
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		begin := time.Now()
		if o.Service != nil {
			e.SetService(o.Service.Namespace+"/"+o.Service.Name, o.Service)
		}
		if o.Slice != nil {
			e.SetSlice(o.Slice.Namespace+"/"+o.Slice.Name, o.Slice)
		}
		if !o.Sync {
			continue
		}
		if !started {
			e.Start()
			started = true
		}
		for !e.Settled() {
			time.Sleep(time.Millisecond)
		}
		clock.mu.Lock()
		r := report{Kernel: clock.took, Event: clock.end.Sub(begin)}
		clock.mu.Unlock()
		if r.Event < 0 {
			return errors.New("the order changed nothing in the kernel")
		}
		time.Sleep(quiet)
		if err := reports.Encode(r); err != nil {
			return err
		}
	}
}
