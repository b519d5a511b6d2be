package engine

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/health"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

const (
	// backoffMin and backoffMax bound the wait after a failure. kube-proxy tries again after its sync period of 30 s at the latest.
	backoffMin, backoffMax = 200 * time.Millisecond, 30 * time.Second
	// tidyAgain is the wait until what doesn't belong to the rules is tried again: health checks' ports and UDP flows.
	tidyAgain = time.Second
	// noticeInterval is how often, at most, the rules are looked at because of what is noticed about them.
	noticeInterval = time.Second
)

// runState is what only Run's goroutine knows.
type runState struct {
	full     bool      // the next sync takes nothing for granted
	damaged  bool      // somebody took rules away, and they have not been put back
	removed  bool      // while paused: the rules are out of the kernel
	failures int       // in a row
	after    time.Time // no sync and no removal before
	check    time.Time // when to see whether the rules are intact
	checked  time.Time
	meddler  string    // the program that changed what is ours alone since then
	tidy     time.Time // when to try again what belongs to no sync; zero for never

	local     []netip.Addr
	flows     *flows
	unclean   bool // the flows could not be looked at, which was told
	checks    *health.Checks
	refused   map[string]bool // Services whose health check's port can't be opened, which was told
	conflicts map[dataplane.Conflict]bool
	triggers  []time.Time
	began     time.Time
}

func newRunState(e *Engine) runState {
	return runState{
		full:  true,
		flows: newFlows(),
		checks: health.NewChecks(func() bool {
			ok, _ := e.Healthy()
			return ok
		}, e.log),
		refused:   map[string]bool{},
		conflicts: map[dataplane.Conflict]bool{},
	}
}

type action uint8

const (
	nothing action = iota
	removeRules
	syncRules
	checkRules
	tidyUp
)

// next decides what to do next, and when.
func (e *Engine) next() (action, time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &e.run
	switch {
	case e.paused && !r.removed:
		return removeRules, r.after
	case e.paused || !e.started:
		return nothing, time.Time{}
	case r.full:
		return syncRules, r.after
	}
	do, at := checkRules, r.check
	if !e.queued.IsZero() && r.after.Before(at) {
		do, at = syncRules, r.after
	}
	if !r.tidy.IsZero() && r.tidy.Before(at) {
		do, at = tidyUp, r.tidy
	}
	return do, at
}

// Run keeps the rules as they have to be until ctx ends. The rules stay then, so that traffic flows while the speaker is replaced.
func (e *Engine) Run(ctx context.Context) error {
	r := &e.run
	r.began = time.Now()
	defer r.checks.Close()
	if e.HealthzBind.IsValid() {
		go health.Serve(ctx, e.HealthzBind, e.Handler(), e.log)
	}
	if e.Mode == dataplane.Full {
		if err := e.kernel.tune(); err != nil {
			e.log.Warn("the kernel's connection tracking keeps values that suit a busy node less well; set them on the node with sysctl", "error", err)
		}
	}
	addrs := e.kernel.watch(ctx, e.log)
	select {
	case <-ctx.Done():
		return nil
	case a := <-addrs: // before the first sync: node ports are open on them
		e.setLocal(a)
	}
	comm, _ := os.ReadFile("/proc/self/comm")
	self := strings.TrimSpace(string(comm))
	changes, timer := e.Changes, time.NewTimer(0)
	for ctx.Err() == nil {
		do, at := e.next()
		if do != nothing && !at.After(time.Now()) {
			e.do(ctx, do)
			continue
		}
		var due <-chan time.Time
		if do != nothing {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-e.wake:
		case <-due:
		case a := <-addrs:
			e.setLocal(a)
		case c, ok := <-changes:
			if !ok { // it ends with ctx
				changes = nil
				break
			}
			e.noticed(c, self)
		}
	}
	return nil
}

func (e *Engine) setLocal(addrs []netip.Addr) {
	e.run.local = addrs
	e.tell(func() { e.tracker.SetLocalAddrs(addrs) })
}

func (e *Engine) do(ctx context.Context, what action) {
	switch what {
	case removeRules:
		e.remove(ctx)
	case syncRules:
		e.sync(ctx)
	case checkRules:
		e.check(ctx)
	case tidyUp:
		e.tidy()
	}
}

// failed returns how long to wait after one more failure.
func (r *runState) failed() time.Duration {
	wait := min(backoffMin<<min(r.failures, 10), backoffMax)
	r.failures++
	r.after = time.Now().Add(wait)
	return wait
}

func (e *Engine) remove(ctx context.Context) {
	r := &e.run
	r.checks.Sync(nil, nil)
	r.full = true
	if err := e.Backend.Remove(ctx); err != nil {
		wait := r.failed()
		e.log.Error("another proxy carries the Services, and the rules could not be taken out of its way; will try again", "again_in", wait, "error", err)
		return
	}
	r.removed, r.failures, r.after, r.tidy = true, 0, time.Time{}, time.Time{}
	e.log.Warn("another proxy carries the Services: the rules are taken out of its way until it is gone")
}

func (e *Engine) sync(ctx context.Context) {
	r := &e.run
	r.removed = false
	start := time.Now()
	e.mu.Lock()
	changed, host := e.tracker.Update(&e.model)
	conflicts := e.tracker.Conflicts()
	r.triggers = append(r.triggers, e.tracker.Triggers()...)
	e.gate.take()
	e.applying, e.queued, e.waiting = e.behind(), time.Time{}, 0
	e.mu.Unlock()
	e.report(conflicts)

	full := r.full || host
	var err error
	if !full && len(changed) > 0 {
		if err = e.apply(ctx, changed); err != nil && ctx.Err() == nil {
			e.log.Warn("changes of Services could not be put in the kernel; comparing all rules", "services", len(changed), "first", changed[0], "error", err)
			full = true
		}
	}
	if full {
		err = e.apply(ctx, nil)
	}
	if err != nil {
		if ctx.Err() == nil {
			e.syncFailed(err, changed)
		}
		return
	}
	took := time.Since(start)

	e.mu.Lock()
	e.gate.succeeded()
	e.mu.Unlock()
	e.metrics.programmed(r.triggers, r.began)
	if r.failures > 0 {
		e.log.Info("the rules are in the kernel again", "failures", r.failures, "took", took)
	}
	r.full, r.damaged, r.failures, r.triggers = false, false, 0, nil
	r.after = time.Now().Add(e.MinInterval)
	if full {
		e.log.Info("the kernel's rules agree with all Services", "services", len(e.model.Ports), "took", took)
		r.check = time.Now().Add(e.checkInterval())
		r.flows.noteAll(&e.model)
		e.tidy()
	} else if len(changed) > 0 {
		r.flows.note(&e.model, changed, sameFlows)
		e.tidy()
	}
	e.mu.Lock()
	e.applying = time.Time{}
	e.mu.Unlock()
}

// apply has the backend put in the kernel what changed; nil for everything.
func (e *Engine) apply(ctx context.Context, changed []string) error {
	start := time.Now()
	err := e.Backend.Sync(ctx, &e.model, changed)
	e.metrics.synced(changed == nil, time.Since(start), err)
	return err
}

func (e *Engine) syncFailed(err error, changed []string) {
	r := &e.run
	e.mu.Lock()
	e.gate.failed(changed)
	if r.damaged {
		e.gate.renew(every)
	}
	e.mu.Unlock()
	r.full = true
	wait := r.failed()
	e.log.Error("the rules could not be put in the kernel: connections are treated as before; will try again", "again_in", wait,
		"failures", r.failures, "changed", len(changed), "error", err)
}

// tidy does what has to follow the rules: it opens and closes the ports of health checks, and cleans the table of connections.
func (e *Engine) tidy() {
	r := &e.run
	r.tidy = time.Time{}
	failures := r.checks.Sync(e.model.HealthChecks, e.model.Host.NodePortAddrs)
	refused := map[string]bool{}
	for _, f := range failures {
		refused[f.Service] = true
		if !r.refused[f.Service] {
			e.log.Error("load balancers that probe this node will think that it is down; will keep trying", "service", f.Service, "error", f.Err)
			e.Events(f.Service, "FailedToStartServiceHealthcheck", "Node "+e.Node+": "+f.Err.Error())
		}
		r.tidy = time.Now().Add(tidyAgain)
	}
	r.refused = refused
	if r.flows.pending.Empty() {
		return
	}
	start := time.Now()
	n, err := e.kernel.clean(r.flows.pending, nodePortAt(e.model.Host, r.local))
	e.metrics.cleaned(time.Since(start), n, err)
	if err != nil {
		if !r.unclean {
			e.log.Error("UDP flows may still go to endpoints that are gone; will keep trying. See them with: conntrack -L -p udp", "error", err)
		}
		r.unclean, r.tidy = true, time.Now().Add(tidyAgain)
		return
	}
	r.unclean = false
	r.flows.cleaned()
	if n > 0 {
		e.log.Debug("forgot UDP flows to what no longer serves", "flows", n, "took", time.Since(start))
	}
}

// report tells about frontends that several Services want, once.
func (e *Engine) report(conflicts []dataplane.Conflict) {
	known := make(map[dataplane.Conflict]bool, len(conflicts))
	for _, c := range conflicts {
		known[c] = true
		if !e.run.conflicts[c] {
			e.log.Warn("two Services want the same place", "service", c.Service, "holder", c.Holder, "problem", c.String())
			e.Events(c.Service, string(c.Reason), c.String())
		}
	}
	e.run.conflicts = known
}

// checkInterval is how often to see whether the rules are intact when nobody tells. Of changes by the old iptables nobody does.
func (e *Engine) checkInterval() time.Duration {
	if e.BackendName == "iptables" {
		return 10 * time.Second
	}
	return 30 * time.Second
}

// noticed has the rules looked at soon if the change may be about them; self is the name of this program's threads.
func (e *Engine) noticed(c monitor.Change, self string) {
	r := &e.run
	tables := []string{"nat", "filter"}
	if e.BackendName == "nftables" {
		tables = []string{"steelyard"}
		if c.Table == tables[0] && c.Program != "" && c.Program != self {
			r.meddler = c.Program
		}
	}
	if !c.Lost && !slices.Contains(tables, c.Table) {
		return
	}
	if at := r.checked.Add(noticeInterval); at.Before(r.check) {
		r.check = at
	}
}

func (e *Engine) check(ctx context.Context) {
	r := &e.run
	r.checked = time.Now()
	r.check = r.checked.Add(e.checkInterval())
	err := e.Backend.Intact(ctx)
	if err == nil && r.meddler != "" {
		// In tables of our own everything is ours, down to the last element, of which Intact knows nothing.
		err = fmt.Errorf("%s changed the table steelyard", r.meddler)
	}
	r.meddler = ""
	if err == nil || ctx.Err() != nil {
		return
	}
	e.metrics.repairs.Inc()
	e.log.Warn("somebody changed the rules; putting them back", "problem", err)
	r.full, r.damaged, r.after = true, true, time.Time{}
}
