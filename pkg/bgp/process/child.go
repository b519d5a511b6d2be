package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

const (
	firstPause, lastPause = 100 * time.Millisecond, 5 * time.Second
	// stable is how long a child has run that did not fail because of how it was started.
	stable = 30 * time.Second
	// endPatience is how long a child may take to end; it tries for stopPatience.
	endPatience = stopPatience + time.Second
)

// supervise keeps a child running while there are peers.
func (e *Engine) supervise(ctx context.Context) {
	pause, restarting := firstPause, false
	for {
		for !e.wanted() {
			select {
			case <-e.wake:
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		started := time.Now()
		told, err := e.child(ctx, restarting)
		if err == nil {
			e.gone("")
			pause, restarting = firstPause, false
			continue
		}
		if ctx.Err() != nil {
			e.config.Log.Warn("The BGP process did not end as it should.", "error", err)
			return
		}
		if time.Since(started) > stable {
			pause = firstPause
		}
		e.config.Log.Error("The BGP process ended unasked. Peers with graceful restart keep this node's routes for now, others have lost them; it is started again.",
			"error", err, "ran", time.Since(started).Round(time.Millisecond), "pause", pause)
		e.gone(fmt.Sprintf("the BGP process of this node ended: %v", err))
		restarting = restarting || told
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// child runs a child until it is not needed any more, for which it returns nil, or ends unasked. It also returns whether the child was
// told anything, and so may have announced something.
func (e *Engine) child(ctx context.Context, restarting bool) (told bool, err error) {
	command := exec.Command(e.config.Command[0], e.config.Command[1:]...)
	in, err1 := command.StdinPipe()
	out, err2 := command.StdoutPipe()
	stderr, err3 := command.StderrPipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return false, err
	}
	if err := command.Start(); err != nil {
		return false, fmt.Errorf("start %s: %w", e.config.Command[0], err)
	}
	log := e.config.Log.With("pid", command.Process.Pid)
	log.Info("Started the BGP process.", "restarting", restarting)
	var failure trace
	var logging sync.WaitGroup
	logging.Go(func() { failure = relay(stderr, e.config.Log) })

	var hung sync.Once
	silent := false
	told, err = e.talk(ctx, out, in, restarting, func() {
		hung.Do(func() { silent = true })
		_ = command.Process.Kill()
		in.Close()
	})
	hung.Do(func() {}) // from here on nobody writes silent
	in.Close()
	timer := time.AfterFunc(endPatience, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	if err != nil && !silent {
		// It may have ended, which takes a moment to see, or may write what can't be read.
		timer.Reset(time.Second)
	}
	_, _ = io.Copy(io.Discard, out)
	logging.Wait()
	ended := command.Wait()
	switch {
	case silent:
		return told, errSilent
	case err == nil:
		if ended != nil {
			log.Warn("The BGP process did not end as it should.", "error", describe(ended, failure))
		}
		return told, nil
	case ended != nil:
		failure.report(log)
		why := describe(ended, failure)
		if !errors.Is(err, errEnded) {
			why += ", after: " + err.Error()
		}
		return told, errors.New(why)
	}
	return told, err
}

// describe says how a process ended and, if it said so, why.
func describe(ended error, t trace) string {
	if why := cmp.Or(t.cause, t.lastError); why != "" {
		return fmt.Sprintf("%v: %s", ended, why)
	}
	return ended.Error()
}
