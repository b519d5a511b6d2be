package membership

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Unix(1e9, 0)

func rosterAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7946)
}

// rosterOf returns the roster of node-1 with count members, all live, each in its first run, with instance 1.
func rosterOf(count int) *roster {
	r := newRoster("node-1")
	for i, name := range nodeNames(count) {
		r.list(epoch, name, rosterAddr(i+1), profile{Instance: 1}, true)
	}
	return r
}

func TestQuorum(t *testing.T) {
	for name, test := range map[string]struct {
		members int
		happens func(r *roster)
		after   time.Duration
		want    bool
	}{
		"alone from the start": {1, func(*roster) {}, 0, true},
		"all live":             {4, func(*roster) {}, 0, true},
		"one of four lost":     {4, func(r *roster) { r.bury(epoch, sighting{"node-2", 1, 0}, PowerLost) }, 0, true},
		"half lost": {4, func(r *roster) {
			r.bury(epoch, sighting{"node-2", 1, 0}, PowerLost)
			r.unlist(epoch, "node-3")
		}, 0, false},
		"half lost long ago": {4, func(r *roster) {
			r.bury(epoch, sighting{"node-2", 1, 0}, PowerLost)
			r.unlist(epoch, "node-3")
		}, rememberForQuorum, true},
		"all others said goodbye": {3, func(r *roster) {
			r.bury(epoch, sighting{"node-2", 1, 0}, Left)
			r.bury(epoch, sighting{"node-3", 1, 0}, Left)
		}, 0, true},
		"left by memberlist's word": {2, func(r *roster) {
			r.list(epoch, "node-2", rosterAddr(2), profile{Instance: 1, Revision: 1, Leaving: true}, false)
			r.unlist(epoch, "node-2")
		}, 0, true},
		"alone, but the API lists others": {1, func(r *roster) {
			r.setSeeds(epoch, []netip.AddrPort{rosterAddr(2), rosterAddr(3)})
		}, 0, false},
		"the API has listed others in vain": {1, func(r *roster) {
			r.setSeeds(epoch, []netip.AddrPort{rosterAddr(2), rosterAddr(3)})
		}, rememberForQuorum, true},
		"listed ones are not counted twice": {3, func(r *roster) {
			r.setSeeds(epoch, []netip.AddrPort{rosterAddr(2), rosterAddr(3)})
			r.bury(epoch, sighting{"node-2", 1, 0}, PowerLost)
		}, 0, true},
		"a stranger was heard, but never a member": {1, func(r *roster) {
			r.hear(epoch, sighting{"node-9", 1, 0}, rosterAddr(9))
		}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := rosterOf(test.members)
			test.happens(r)
			if got := r.quorum(epoch.Add(test.after)); got != test.want {
				t.Errorf("quorum is %v, want %v", got, test.want)
			}
		})
	}
}

// What brings back a member that was buried after it was last seen at an uptime of 10 s.
func TestGrave(t *testing.T) {
	const last = 10 * time.Second
	hear := func(instance uint64, uptime time.Duration) func(*roster) bool {
		return func(r *roster) bool {
			return r.hear(epoch, sighting{"node-2", instance, uptime}, rosterAddr(2)) && r.raise(epoch, "node-2")
		}
	}
	told := func(instance uint64, uptime time.Duration) func(*roster) bool {
		return func(r *roster) bool { return r.returned(epoch, sighting{"node-2", instance, uptime}) }
	}
	listed := func(instance uint64, joined bool) func(*roster) bool {
		return func(r *roster) bool {
			return r.list(epoch, "node-2", rosterAddr(2), profile{Instance: instance}, joined)
		}
	}
	for name, test := range map[string]struct {
		reason LossReason
		event  func(*roster) bool
		want   bool
	}{
		"late packet":                              {PowerLost, hear(1, last+200*time.Millisecond), false},
		"packet sent after its death":              {PowerLost, hear(1, last+proofOfLife), true},
		"packet of another run":                    {PowerLost, hear(2, 0), true},
		"packet after goodbye":                     {Left, hear(1, last+time.Minute), false},
		"packet of the run after goodbye":          {Left, hear(2, 0), true},
		"told of a later sighting":                 {PowerLost, told(1, last+proofOfLife), true},
		"told of an old sighting":                  {PowerLost, told(1, last), false},
		"told of another run":                      {PowerLost, told(2, 0), true},
		"old gossip":                               {PowerLost, listed(1, false), false},
		"gossip of another run":                    {PowerLost, listed(2, false), true},
		"memberlist had it dead and has it joined": {Silent, listed(1, true), true},
		"joined after goodbye, the same run":       {Left, listed(1, true), false},
		"joined after goodbye, another run":        {Left, listed(2, true), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := rosterOf(3)
			r.hear(epoch, sighting{"node-2", 1, last}, rosterAddr(2))
			if !r.bury(epoch, sighting{"node-2", 1, last}, test.reason) || len(r.live()) != 2 {
				t.Fatal("not buried")
			}
			if got := test.event(r); got != test.want || (len(r.live()) == 3) != test.want {
				t.Errorf("counts again: %v with %d live, want %v", got, len(r.live()), test.want)
			}
		})
	}
}

func TestObituaryThatIsOldNews(t *testing.T) {
	r := rosterOf(2)
	r.hear(epoch, sighting{"node-2", 1, time.Minute}, rosterAddr(2))
	if r.bury(epoch, sighting{"node-2", 1, time.Second}, PowerLost) {
		t.Error("an obituary from before the last heartbeat is believed")
	}
	if r.bury(epoch, sighting{"node-1", 1, time.Second}, PowerLost) {
		t.Error("a speaker buries itself")
	}
}

func TestGraveThatMemberlistDoesNotBelieveIn(t *testing.T) {
	r := rosterOf(2)
	r.bury(epoch, sighting{"node-2", 1, 0}, PowerLost)
	if got := r.outlived(epoch.Add(graveLimit)); len(got) != 0 {
		t.Errorf("given up too early: %v", got)
	}
	if got := r.outlived(epoch.Add(graveLimit + 1)); !slices.Equal(got, []string{"node-2"}) {
		t.Errorf("outlived: %v, want node-2", got)
	}
}

func TestGreet(t *testing.T) {
	mine := func(int) bool { return true }
	r := rosterOf(4)
	if got := r.greet(epoch, mine); len(got) != 0 {
		t.Errorf("greets live members: %v", got)
	}
	r.bury(epoch, sighting{"node-2", 1, 0}, PowerLost)
	r.bury(epoch, sighting{"node-3", 1, 0}, Left)
	r.setSeeds(epoch, []netip.AddrPort{rosterAddr(4), rosterAddr(9)})
	count := map[netip.AddrPort]int{}
	for at := time.Duration(0); at < 10*time.Second; at += helloInterval {
		for _, addr := range r.greet(epoch.Add(at), mine) {
			count[addr]++
		}
	}
	for i, want := range map[int]int{1: 0, 2: 40, 3: 2, 4: 0, 9: 40} {
		if count[rosterAddr(i)] != want {
			t.Errorf("address %d is greeted %d times in 10 s, want %d", i, count[rosterAddr(i)], want)
		}
	}
	r.greet(epoch.Add(rememberForHello+time.Second), mine)
	if r.peers["node-2"] != nil || r.peers["node-4"] == nil {
		t.Error("after a day a vanished speaker has to be forgotten, and a live one kept")
	}
}

func TestGreetIsBoundedAndFair(t *testing.T) {
	r := rosterOf(40)
	for _, name := range nodeNames(40)[1:] {
		r.bury(epoch, sighting{name, 1, 0}, PowerLost)
	}
	greeted := map[netip.AddrPort]bool{}
	for round := range 5 {
		addrs := r.greet(epoch.Add(time.Duration(round)*helloInterval), func(int) bool { return true })
		if len(addrs) > hellosAtOnce {
			t.Errorf("greets %d at once", len(addrs))
		}
		for _, addr := range addrs {
			greeted[addr] = true
		}
	}
	if len(greeted) != 39 {
		t.Errorf("%d of 39 were greeted in five rounds", len(greeted))
	}
}

func TestUnansweredIsReportedOnce(t *testing.T) {
	r := rosterOf(2)
	r.setSeeds(epoch, []netip.AddrPort{rosterAddr(2), rosterAddr(9)})
	if got := r.unanswered(epoch.Add(time.Second), time.Minute); len(got) != 0 {
		t.Errorf("too early: %v", got)
	}
	if got := r.unanswered(epoch.Add(time.Hour), time.Minute); !slices.Equal(got, []netip.AddrPort{rosterAddr(9)}) {
		t.Errorf("reports %v", got)
	}
	if got := r.unanswered(epoch.Add(2*time.Hour), time.Minute); len(got) != 0 {
		t.Errorf("reports again: %v", got)
	}
}

func TestLogWriter(t *testing.T) {
	var out bytes.Buffer
	w := newLogWriter(slog.New(slog.NewTextHandler(&out, nil)))
	for i := range 100 {
		fmt.Fprintf(w, "[ERR] memberlist: Decrypt packet failed: No installed keys could decrypt the message from=192.0.2.9:7946\n")
		fmt.Fprintf(w, "[ERR] memberlist: failed to receive: encryption is configured but remote state is not encrypted from=[2001:db8::9]:%d\n", 1000+i)
		fmt.Fprintf(w, "[WARN] memberlist: Refuting a suspect message (from: node-3)\n")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "address=192.0.2.9") || !strings.Contains(lines[1], "address=2001:db8::9") {
		t.Errorf("want one warning for each address, got:\n%s", out.String())
	}
}
