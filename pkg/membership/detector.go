package membership

import (
	"maps"
	"slices"
	"time"
)

// The detector's timing. Heartbeats come every heartbeatInterval; their absence only makes the watcher ask the
// member's kernel. The sum suspectAfter + echoes*tickInterval + answerWithin is the time from the last heartbeat
// to the verdict: docs/decisions/0001-failure-detection.md has the measurements behind these values.
const (
	tickInterval      = 25 * time.Millisecond
	heartbeatInterval = 100 * time.Millisecond
	suspectAfter      = 200 * time.Millisecond
	echoes            = 5                      // this many echo requests in a row must stay unanswered
	answerWithin      = 45 * time.Millisecond  // the last of them gets this long
	echoPatience      = 75 * time.Millisecond  // between echo requests while the kernel answers them
	silenceFloor      = 250 * time.Millisecond // without heartbeat and echo reply before any verdict
	silenceLimit      = time.Second            // without heartbeat and echo reply, for kernels that answer no echo
	freshEvidence     = 150 * time.Millisecond
	kernelCheck       = 2 * time.Second        // between echo requests to a healthy member
	kernelCheckFirst  = 200 * time.Millisecond // the same until its kernel has answered once
	maxStep           = 100 * time.Millisecond // of own inattention that counts as the others' silence
)

// LossReason says why a member is not counted any more.
type LossReason string

const (
	// PowerLost: neither the speaker nor its node's kernel answers.
	PowerLost LossReason = "PowerLost"
	// Silent: no heartbeat for a second, from a node whose kernel does not answer echo requests anyway.
	Silent LossReason = "Silent"
	// SpeakerGone: memberlist gave the speaker up; its node may well be alive.
	SpeakerGone LossReason = "SpeakerGone"
	// Left: the speaker said goodbye.
	Left LossReason = "Left"
)

var lossReasons = []LossReason{PowerLost, Silent, SpeakerGone, Left}

// verdict is what the detector asks for at a tick.
type verdict struct {
	name  string
	echo  bool       // send an echo request to the member's node
	doubt bool       // ask the member's other watchers
	lost  LossReason // not empty: the member is dead
}

// detector judges from heartbeats and echo replies which of the watched members have lost power. It is a pure
// state machine: it does no I/O and knows the time only from its callers.
//
// Its clock is its own: it advances with the ticks, by at most maxStep for each. A process that was stopped or
// starved for two seconds finds its clock advanced by a tenth of a second, with the others' heartbeats still
// waiting in its sockets; what it slept through is not held against them.
type detector struct {
	clock   time.Duration
	ticked  time.Time
	watches map[string]*watch
	// kernels outlives the watches: which nodes' kernels answer echo requests while their speaker is healthy.
	kernels map[string]bool
}

type watch struct {
	heard      time.Duration // detector's clock at the last heartbeat, own or vouched for
	answered   time.Duration // the same at the last echo reply
	asked      time.Duration // the same at the last echo request
	unanswered int           // echo requests since the last sign of life
	suspect    bool
}

func newDetector(now time.Time) *detector {
	// The clock starts high so that "long ago" can be written as a small value.
	return &detector{clock: time.Hour, ticked: now, watches: map[string]*watch{}, kernels: map[string]bool{}}
}

// watch replaces the watched set. A member that is new in it is asked at once: if it became ours because its
// other watchers died, it may have died with them.
func (d *detector) watch(names []string) {
	for name := range d.watches {
		if !slices.Contains(names, name) {
			delete(d.watches, name)
		}
	}
	for _, name := range names {
		if d.watches[name] == nil {
			d.watches[name] = &watch{heard: d.clock - suspectAfter}
		}
	}
}

// heard records a message that came from the member itself.
func (d *detector) heard(name string) { d.vouched(name, 0) }

// vouched records that another watcher heard the member that long ago.
func (d *detector) vouched(name string, age time.Duration) {
	w := d.watches[name]
	if w == nil || d.clock-age <= w.heard {
		return
	}
	w.heard = d.clock - age
	if w.suspect && d.clock-w.heard < suspectAfter {
		w.suspect, w.unanswered = false, 0
	}
}

// answered records an echo reply from the member's node.
func (d *detector) answered(name string) {
	if w := d.watches[name]; w != nil {
		w.answered, w.unanswered = d.clock, 0
		d.kernels[name] = true
	}
}

// evidence returns how long ago there was a heartbeat from the member; ok is false if that is too long to vouch for it.
func (d *detector) evidence(name string) (age time.Duration, ok bool) {
	w := d.watches[name]
	if w == nil {
		return 0, false
	}
	age = d.clock - w.heard
	return age, age < freshEvidence
}

// tick judges every watched member. A member that is reported as lost is watched no longer.
func (d *detector) tick(now time.Time) []verdict {
	d.clock += min(max(now.Sub(d.ticked), 0), maxStep)
	d.ticked = now
	var verdicts []verdict
	for _, name := range slices.Sorted(maps.Keys(d.watches)) {
		v := d.judge(name, d.watches[name])
		if v.lost != "" {
			delete(d.watches, name)
		}
		if v.echo || v.lost != "" {
			verdicts = append(verdicts, v)
		}
	}
	return verdicts
}

func (d *detector) judge(name string, w *watch) verdict {
	if d.clock-w.heard < suspectAfter {
		return d.checkKernel(name, w)
	}
	if !w.suspect {
		w.suspect, w.unanswered, w.asked = true, 0, 0
	}
	sinceAsked, silence := d.clock-w.asked, d.clock-max(w.heard, w.answered)
	switch {
	case d.kernels[name] && w.unanswered >= echoes && sinceAsked >= answerWithin && silence >= silenceFloor:
		return verdict{name: name, lost: PowerLost}
	case silence >= silenceLimit:
		return verdict{name: name, lost: Silent}
	case d.kernels[name] && w.unanswered >= echoes && silence >= silenceFloor:
		return verdict{}
	case w.unanswered == 0 && sinceAsked < echoPatience:
		return verdict{}
	}
	w.asked = d.clock
	w.unanswered++
	return verdict{name: name, echo: true, doubt: w.unanswered > 1}
}

// checkKernel asks a healthy member's kernel now and then: only a kernel that answers in good times can be judged
// by its silence in bad times.
func (d *detector) checkKernel(name string, w *watch) verdict {
	interval := kernelCheckFirst
	if d.kernels[name] {
		interval = kernelCheck
	}
	if d.clock-w.asked < interval {
		return verdict{}
	}
	if w.unanswered >= echoes {
		d.kernels[name] = false
	}
	w.asked = d.clock
	w.unanswered++
	return verdict{name: name, echo: true}
}
