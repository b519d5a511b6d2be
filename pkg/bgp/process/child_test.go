package process

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// childMode is the environment variable that makes the test binary something else than tests.
const childMode = "BGP_PROCESS_TEST_CHILD"

// journal is the environment variable with the file where a child notes what it was told.
const journal = "BGP_PROCESS_TEST_JOURNAL"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		os.Exit(m.Run())
	case "engine":
		log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
		if err := Serve(os.Stdin, os.Stdout, newFake(log)); err != nil {
			log.Error(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	case "deaf": // reads nothing, says nothing
		note(entry{Kind: "started"})
		time.Sleep(time.Hour)
	case "babbler": // says what is no report
		note(entry{Kind: "started"})
		fmt.Println(strings.Repeat("neighbor 192.0.2.1 Up\n", 100))
		time.Sleep(time.Hour)
	case "together":
		speakerAndEngine()
	case "speaker":
		speaker()
	}
	os.Exit(3)
}

// entry is a line of the journal.
type entry struct {
	PID    int
	Kind   string // started, applied, reset, stopped
	Change bgp.Change
	Peer   string
}

func note(e entry) {
	e.PID = os.Getpid()
	b, err := json.Marshal(e)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(os.Getenv(journal), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			_, err = f.Write(append(b, '\n'))
			f.Close()
		}
	}
	if err != nil {
		panic(err)
	}
}

// fake is an engine whose sessions are always up. What it does apart from that, it is told by the names of peers.
type fake struct {
	log     *slog.Logger
	changed chan struct{}

	mu     sync.Mutex
	peers  map[string]bgp.Peer
	routes map[netip.Prefix]bgp.Route
}

func newFake(log *slog.Logger) *fake {
	note(entry{Kind: "started"})
	return &fake{log: log, changed: make(chan struct{}, 1), peers: map[string]bgp.Peer{}, routes: map[netip.Prefix]bgp.Route{}}
}

func (f *fake) Apply(c bgp.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range c.GonePeers {
		delete(f.peers, name)
	}
	for _, prefix := range c.GoneRoutes {
		delete(f.routes, prefix)
	}
	for _, p := range c.Peers {
		f.peers[p.Name] = p
		switch p.Name {
		case "panics": // as a goroutine of a library does, where no recover reaches
			f.log.Info("Received an update.", "peer", p.Name, "asn", uint32(4200000000), slog.Group("update", "bytes", 19))
			go func() { panic("runtime error: slice bounds out of range in an update") }()
			select {}
		case "hangs":
			note(entry{Kind: "hangs"})
			select {}
		case "fails":
			return fmt.Errorf("no memory for peer %s", p.Name)
		}
	}
	for _, r := range c.Routes {
		f.routes[r.Prefix] = r
	}
	note(entry{Kind: "applied", Change: c})
	notify(f.changed)
	return nil
}

func (f *fake) Reset(peer, why string) { note(entry{Kind: "reset", Peer: peer + ": " + why}) }

func (f *fake) Sessions() []bgp.Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []bgp.Session
	for name := range f.peers {
		all = append(all, bgp.Session{Peer: name, State: bgp.Established, Announced: len(f.routes)})
	}
	slices.SortFunc(all, func(a, b bgp.Session) int { return strings.Compare(a.Peer, b.Peer) })
	return all
}

func (f *fake) Changed() <-chan struct{} { return f.changed }
func (f *fake) Stop()                    { note(entry{Kind: "stopped"}) }

// entries reads the journal so far.
func entries(t *testing.T, path string) []entry {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var all []entry
	for line := range strings.Lines(string(b)) {
		var e entry
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("journal: %v in %q", err, line)
		}
		all = append(all, e)
	}
	return all
}

// await returns the entry of the nth child (from 1) that satisfies the condition, waiting for it.
func await(t *testing.T, path string, child int, what string, condition func(entry) bool) (found entry) {
	t.Helper()
	eventually(t, fmt.Sprintf("child %d: %s", child, what), func() bool {
		pid, n := 0, 0
		for _, e := range entries(t, path) {
			if e.Kind == "started" {
				n++
				if n == child {
					pid = e.PID
				}
			}
			if pid != 0 && e.PID == pid && condition(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// patience is how long a test waits for what should take an instant, but may not on a busy machine.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func peers(names ...string) []bgp.Peer {
	var all []bgp.Peer
	for i, name := range names {
		all = append(all, bgp.Peer{Name: name, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Password: "secret of " + name, IPv4: true})
	}
	return all
}

func routes(n int, peers ...string) []bgp.Route {
	attributes := &bgp.Attributes{Communities: []bgp.Community{{A: 65000, B: 1}}}
	var all []bgp.Route
	for i := range n {
		all = append(all, bgp.Route{
			Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 32),
			Paths:  []bgp.Path{{Peers: peers, Attributes: attributes}},
		})
	}
	return all
}

var routerID = netip.MustParseAddr("192.0.2.200")
