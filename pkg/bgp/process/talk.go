package process

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// silence is how long a child may say nothing, or take to apply a change, before it is taken for hung. A child whose routes can't be
// changed any more is worse than none, but peers lose routes when it is killed: so this is far above what a busy machine takes.
const silence = 60 * time.Second

var (
	errSilent = errors.New("it did not answer in time and was killed")
	errEnded  = errors.New("it ended")
)

// talk tells the child what is desired and notes what it says, until the child fails, or there are no peers any more, or ctx is done. For
// the last two it returns nil, after the child has done what was desired. It also returns whether it told the child anything. One change
// is under way at a time; what is synced meanwhile is sent in one after it. hung is called if the child does not answer, and is to close
// in and out, which ends the talk.
func (e *Engine) talk(ctx context.Context, in io.Reader, out io.Writer, restarting bool, hung func()) (told bool, err error) {
	watchdog := time.AfterFunc(silence, hung)
	defer watchdog.Stop()
	// Here and not only below, which is not reached while a write is stuck.
	defer context.AfterFunc(ctx, func() { watchdog.Reset(stopPatience) })()
	reports, failed, quit := make(chan report), make(chan error, 1), make(chan struct{})
	defer close(quit)
	go func() {
		for decoder := gob.NewDecoder(in); ; {
			var r report
			if err := decoder.Decode(&r); err != nil {
				failed <- err
				return
			}
			select {
			case reports <- r:
			case <-quit:
				return
			}
		}
	}()
	t := teller{encoder: gob.NewEncoder(out)}
	stopping := ctx.Done()
	for {
		desired, resets := e.take()
		if err := t.tell(desired, resets, restarting); err != nil {
			return t.number > 0, err
		}
		if t.number == t.applied && (len(desired.Peers) == 0 || stopping == nil) {
			return t.number > 0, nil
		}
		select {
		case <-e.wake:
		case <-stopping:
			stopping = nil
			watchdog.Reset(stopPatience)
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				err = errEnded
			}
			return t.number > 0, err
		case r := <-reports:
			if r.Applied > 0 {
				t.applied = r.Applied
			}
			if r.HasSessions {
				e.heard(r.Sessions)
			}
			if stopping != nil && t.number == t.applied {
				watchdog.Reset(silence)
			}
		}
	}
}

// teller remembers what a child has been told.
type teller struct {
	encoder         *gob.Encoder
	told            bgp.Desired
	number, applied uint64 // of changes; they differ while one is under way
}

func (t *teller) tell(desired bgp.Desired, resets map[string]string, restarting bool) error {
	for peer, why := range resets {
		if err := t.encoder.Encode(order{Peer: peer, Why: why}); err != nil {
			return fmt.Errorf("tell it to reset peer %s: %w", peer, err)
		}
	}
	if t.number != t.applied {
		return nil
	}
	c := bgp.Diff(t.told, desired)
	same := c.RouterID == t.told.RouterID && c.ListenPort == t.told.ListenPort &&
		len(c.Peers) == 0 && len(c.GonePeers) == 0 && len(c.Routes) == 0 && len(c.GoneRoutes) == 0
	if same && t.number > 0 {
		return nil
	}
	c.Restarting = restarting && t.number == 0
	if err := t.encoder.Encode(order{Number: t.number + 1, Change: pack(c)}); err != nil {
		return fmt.Errorf("tell it a change: %w", err)
	}
	t.number++
	t.told = desired
	return nil
}
