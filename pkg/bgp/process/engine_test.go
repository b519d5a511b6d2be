package process

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// buffer is what was logged.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs an Engine whose children are this test binary in a mode of TestMain. It returns the journal's path and the log too.
func start(t *testing.T, mode string) (e *Engine, path string, log *buffer, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "journal")
	t.Setenv(childMode, mode)
	t.Setenv(journal, path)
	log = &buffer{}
	ctx, cancel := context.WithCancel(context.Background())
	e = Start(ctx, Config{Command: []string{os.Args[0]}, Log: slog.New(slog.NewJSONHandler(log, nil))})
	stop = func() { cancel(); e.Wait() }
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
		if strings.Contains(log.String(), "secret of") {
			t.Errorf("a password is in the log:\n%s", log)
		}
	})
	return e, path, log, stop
}

func established(e *Engine, announced int) func() bool {
	return func() bool {
		for _, s := range e.Sessions() {
			if s.State != bgp.Established || s.Announced != announced {
				return false
			}
		}
		return true
	}
}

func applied(routes, peers int) func(entry) bool {
	return func(e entry) bool {
		return e.Kind == "applied" && len(e.Change.Routes) == routes && len(e.Change.Peers) == peers
	}
}

func TestKilledChild(t *testing.T) {
	e, path, _, _ := start(t, "engine")
	all := routes(101, "a", "b")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a", "b"), Routes: all[:100]})
	first := await(t, path, 1, "is told everything", applied(100, 2))
	if first.Change.Restarting || first.Change.RouterID != routerID || first.Change.Peers[0].Password != "secret of a" {
		t.Errorf("the first child is told %+v", first.Change)
	}
	eventually(t, "sessions are up", established(e, 100))

	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := await(t, path, 2, "is told everything again", applied(100, 2))
	if !second.Change.Restarting {
		t.Error("the second child is not told that it is a restart")
	}
	eventually(t, "sessions are up again", established(e, 100))
	for _, s := range e.Sessions() {
		if !strings.Contains(s.LastError, "killed") {
			t.Errorf("session with %s does not tell why it ended, but %q", s.Peer, s.LastError)
		}
	}

	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a", "b"), Routes: all})
	third := await(t, path, 2, "is told what else there is", applied(1, 0))
	if third.Change.Restarting || third.Change.Routes[0].Prefix != all[100].Prefix {
		t.Errorf("a difference of one route is told as %+v", third.Change)
	}
}

// TestPanickingChild is the counterpart of TestPanicInOneProcess.
func TestPanickingChild(t *testing.T) {
	e, path, log, _ := start(t, "engine")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a", "panics"), Routes: routes(10, "a")})
	await(t, path, 2, "is started", func(e entry) bool { return e.Kind == "started" })
	eventually(t, "sessions tell of the panic", func() bool {
		s := e.Sessions()
		return len(s) == 2 && s[0].State == bgp.Idle && strings.Contains(s[0].LastError, "slice bounds out of range in an update")
	})
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: routes(10, "a")})
	eventually(t, "the session with the harmless peer is up", established(e, 10))
	for _, want := range []string{
		`"panic":"panic: runtime error: slice bounds`, `"trace":"goroutine `,
		`"level":"INFO","msg":"Received an update.","asn":4200000000,"peer":"panics","update":{"bytes":19}`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %s", want)
		}
	}
}

func TestFailingChild(t *testing.T) {
	e, path, _, _ := start(t, "engine")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("fails")})
	await(t, path, 3, "is started", func(e entry) bool { return e.Kind == "started" })
	await(t, path, 1, "has stopped its sessions", func(e entry) bool { return e.Kind == "stopped" })
	if s := e.Sessions(); !strings.Contains(s[0].LastError, "no memory for peer fails") {
		t.Errorf("the session tells %q", s[0].LastError)
	}
}

func TestChildThatReadsNothing(t *testing.T) {
	e, path, _, stop := start(t, "deaf")
	all := routes(20_000, "a")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: all})
	await(t, path, 1, "is started", func(e entry) bool { return e.Kind == "started" })
	begin := time.Now()
	for i := range 1000 {
		e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: all[i:]})
		e.Reset("a", "BFD")
		if s := e.Sessions(); len(s) != 1 || s[0].State != bgp.Idle {
			t.Fatalf("sessions: %+v", s)
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("1000 calls took %v: they wait for the child", took)
	}
	if n := len(entries(t, path)); n != 1 {
		t.Errorf("%d children were started: this one was not deaf", n)
	}
	begin = time.Now()
	stop()
	if took := time.Since(begin); took > patience {
		t.Errorf("the engine took %v to end", took)
	}
}

func TestChildThatBabbles(t *testing.T) {
	e, path, _, _ := start(t, "babbler")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a")})
	await(t, path, 2, "is started", func(e entry) bool { return e.Kind == "started" })
	if s := e.Sessions(); !strings.Contains(s[0].LastError, "gob: ") {
		t.Errorf("the session tells %q", s[0].LastError)
	}
}

func TestNoProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := Start(ctx, Config{Command: []string{"/no/such/program"}, Log: slog.New(slog.DiscardHandler)})
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a")})
	eventually(t, "the session tells that the program is missing", func() bool {
		return strings.Contains(e.Sessions()[0].LastError, "/no/such/program")
	})
	cancel()
	e.Wait()
}

// TestStop: a container's stop signal reaches the child before the speaker has withdrawn routes.
func TestStop(t *testing.T) {
	e, path, log, stop := start(t, "engine")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: routes(3, "a")})
	first := await(t, path, 1, "is told everything", applied(3, 1))
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if err := syscall.Kill(first.PID, s); err != nil {
			t.Fatal(err)
		}
	}
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: routes(2, "a")})
	stop()
	all := entries(t, path)
	if n := len(all); n != 4 || len(all[n-2].Change.GoneRoutes) != 1 || all[n-1].Kind != "stopped" || all[n-1].PID != first.PID {
		t.Errorf("the child did not do what was synced last and then stop: %+v", all)
	}
	if strings.Contains(log.String(), `"level":"ERROR"`) {
		t.Errorf("an end that was asked for is logged as an error:\n%s", log)
	}
}

func TestChildOnlyWithPeers(t *testing.T) {
	e, path, _, _ := start(t, "engine")
	e.Sync(bgp.Desired{RouterID: routerID, Routes: routes(3)})
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: routes(3, "a")})
	await(t, path, 1, "is told everything", applied(3, 1))
	e.Sync(bgp.Desired{RouterID: routerID, Routes: routes(3)})
	await(t, path, 1, "loses its peer", func(e entry) bool { return len(e.Change.GonePeers) == 1 })
	await(t, path, 1, "ends", func(e entry) bool { return e.Kind == "stopped" })
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: routes(3, "a")})
	if again := await(t, path, 2, "is told everything", applied(3, 1)); again.Change.Restarting {
		t.Error("a child after one that ended as asked is told that it is a restart")
	}
}

func TestResetOvertakesChange(t *testing.T) {
	e, path, _, _ := start(t, "engine")
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a")})
	await(t, path, 1, "is told everything", applied(0, 1))
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a", "hangs")})
	await(t, path, 1, "hangs", func(e entry) bool { return e.Kind == "hangs" })
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a", "hangs"), Routes: routes(1, "a")})
	e.Reset("a", "BFD: Control Detection Time Expired")
	await(t, path, 1, "resets", func(e entry) bool { return e.Kind == "reset" && e.Peer == "a: BFD: Control Detection Time Expired" })
}

// speakerAndEngine is a program that calls the engine directly, with all the care that it can take, and does something else beside it.
func speakerAndEngine() {
	e := newFake(slog.New(slog.DiscardHandler))
	go func() {
		defer func() { note(entry{Kind: "recovered", Peer: "from " + stringOf(recover())}) }()
		_ = e.Apply(bgp.Change{Peers: peers("panics")})
	}()
	time.Sleep(patience) // answering ARP requests, say
	note(entry{Kind: "survived"})
	os.Exit(0)
}

// speaker is a program that has its engine in a child.
func speaker() {
	if err := os.Setenv(childMode, "engine"); err != nil {
		panic(err)
	}
	e := Start(context.Background(), Config{Command: []string{os.Args[0]}, Log: slog.Default()})
	e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a"), Routes: routes(3, "a")})
	select {}
}

// TestKilledSpeaker: nothing is left behind that holds the sessions, which the next speaker needs.
func TestKilledSpeaker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childMode+"=speaker", journal+"="+path)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, path, 1, "is told everything", applied(3, 1))
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	last := await(t, path, 1, "has stopped its sessions", func(e entry) bool { return e.Kind == "stopped" })
	eventually(t, "the child is gone", func() bool { return syscall.Kill(last.PID, 0) != nil || zombie(last.PID) })
}

// zombie says that a process has ended and only its parent does not know yet.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func stringOf(v any) string {
	s, _ := v.(string)
	return s
}

// TestPanicInOneProcess shows what processes are for: a panic in a goroutine of the engine reaches no recover of the caller, and ends
// everything that the program does.
func TestPanicInOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childMode+"=together", journal+"="+path)
	output, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "slice bounds out of range in an update") {
		t.Errorf("the program ended with %v and said:\n%s", err, output)
	}
	for _, e := range entries(t, path) {
		if e.Kind != "started" {
			t.Errorf("the program noted %+v after the panic", e)
		}
	}
}
