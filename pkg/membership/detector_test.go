package membership

import (
	"testing"
	"time"
)

// behaviour is how one watched member behaves in a detector test, by the time since the start.
type behaviour struct {
	beats   func(at time.Duration) bool // its heartbeats arrive
	answers func(at time.Duration) bool // its kernel's echo replies arrive
	vouched func(at time.Duration) bool // another watcher says it heard it just now
	awake   func(at time.Duration) bool // the watcher itself gets to run
}

func always(time.Duration) bool { return true }
func never(time.Duration) bool  { return false }

func until(end time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at < end }
}

func except(from, to time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at < from || at >= to }
}

// every lets only the nth of n packets or ticks through.
func every(n int) func(time.Duration) bool {
	count := 0
	return func(time.Duration) bool { count++; return count%n == 0 }
}

func TestDetector(t *testing.T) {
	const start = 5 * time.Second // when things happen; the detector has learned about the kernel by then
	for name, test := range map[string]struct {
		behaviour
		want     LossReason
		min, max time.Duration // after start
	}{
		"healthy":                   {behaviour: behaviour{always, always, never, always}},
		"power lost":                {behaviour{until(start), until(start), never, always}, PowerLost, 200 * time.Millisecond, 350 * time.Millisecond},
		"speaker gone, node alive":  {behaviour: behaviour{until(start), always, never, always}},
		"speaker away for 2 s":      {behaviour: behaviour{except(start, start+2*time.Second), always, never, always}},
		"no reply to echo, ever":    {behaviour{until(start), never, never, always}, Silent, 850 * time.Millisecond, 1050 * time.Millisecond},
		"echo forbidden in between": {behaviour{until(start), until(start / 2), never, always}, PowerLost, 200 * time.Millisecond, 350 * time.Millisecond},
		"echo forbidden long ago":   {behaviour{until(60 * time.Second), until(5 * time.Second), never, always}, Silent, 55*time.Second + 850*time.Millisecond, 55*time.Second + 1050*time.Millisecond},
		"cut off for 200 ms":        {behaviour: behaviour{except(start, start+200*time.Millisecond), except(start, start+200*time.Millisecond), never, always}},
		"only we do not hear it":    {behaviour: behaviour{until(start), until(start), always, always}},
		"others hear it for a second": {behaviour{until(start), until(start), except(start+time.Second, time.Hour), always}, PowerLost,
			1200 * time.Millisecond, 1400 * time.Millisecond},
		"own stall of 2 s":                      {behaviour: behaviour{always, always, never, except(start, start+2*time.Second)}},
		"power lost, own stall":                 {behaviour{until(start), until(start), never, except(start, start+time.Second)}, PowerLost, time.Second, 1350 * time.Millisecond},
		"power lost, starved":                   {behaviour{until(start), until(start), never, every(2)}, PowerLost, 250 * time.Millisecond, 500 * time.Millisecond},
		"two of three beats missing":            {behaviour: behaviour{every(3), always, never, always}},
		"speaker gone, one echo reply in three": {behaviour: behaviour{until(start), every(3), never, always}},
		"power lost after its speaker":          {behaviour{until(start), until(start + time.Second), never, always}, PowerLost, 1250 * time.Millisecond, 1400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			got, at := judge(test.behaviour, 70*time.Second)
			if got != test.want {
				t.Fatalf("verdict %q at %s, want %q", got, at-start, test.want)
			}
			if got != "" && (at-start < test.min || at-start > test.max) {
				t.Errorf("verdict after %s, want between %s and %s", at-start, test.min, test.max)
			}
		})
	}
}

// judge runs a detector that watches one member.
func judge(b behaviour, length time.Duration) (LossReason, time.Duration) {
	epoch := time.Unix(0, 0)
	d := newDetector(epoch)
	d.watch([]string{"x"})
	var waiting []func() // arrived while the watcher was not awake
	for at := time.Duration(0); at < length; at += tickInterval {
		if at%heartbeatInterval == 0 && b.beats(at) {
			waiting = append(waiting, func() { d.heard("x") })
		}
		if !b.awake(at) {
			continue
		}
		for _, arrived := range waiting {
			arrived()
		}
		waiting = nil
		for _, v := range d.tick(epoch.Add(at)) {
			if v.lost != "" {
				return v.lost, at
			}
			if v.echo && b.answers(at) {
				waiting = append(waiting, func() { d.answered("x") })
			}
			if v.doubt && b.vouched(at) {
				waiting = append(waiting, func() { d.vouched("x", tickInterval) })
			}
		}
	}
	return "", 0
}

func TestDetectorVouchesOnlyForTheFresh(t *testing.T) {
	epoch := time.Unix(0, 0)
	d := newDetector(epoch)
	d.watch([]string{"x"})
	if _, ok := d.evidence("x"); ok {
		t.Error("vouches for a member that it has just begun to watch")
	}
	d.heard("x")
	if age, ok := d.evidence("x"); !ok || age != 0 {
		t.Errorf("does not vouch for a member just heard: %s, %v", age, ok)
	}
	for at := tickInterval; at <= freshEvidence; at += tickInterval {
		d.tick(epoch.Add(at))
	}
	if _, ok := d.evidence("x"); ok {
		t.Error("vouches for a member not heard lately")
	}
	if _, ok := d.evidence("stranger"); ok {
		t.Error("vouches for a member that it does not watch")
	}
}
