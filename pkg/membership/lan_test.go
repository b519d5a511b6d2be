package membership

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The tests in this package run each speaker as a process of its own, in a network namespace of its own, so that
// it can be stopped and killed, and its cable cut, as a node's can.
const (
	speakerEnv = "MEMBERSHIP_TEST_SPEAKER"
	burnEnv    = "MEMBERSHIP_TEST_BURN"
)

func TestMain(m *testing.M) {
	if os.Getenv(burnEnv) != "" {
		for {
			runtime.Gosched() // to nobody: the loop never rests
		}
	}
	if config := os.Getenv(speakerEnv); config != "" {
		if err := runSpeaker(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// speakerConfig is what a test passes to a speaker's process.
type speakerConfig struct {
	Name  string
	Bind  netip.Addr
	Key   string // hex
	Peers []netip.Addr
}

// view is what a speaker reports after each change.
type view struct {
	At      time.Time
	Members []string // "name", or "name!" when leaving
	Quorum  bool
	State   []string
	MACs    map[string]int
}

// set is a replicated set of words: merging is union.
type set struct {
	mu      sync.Mutex
	words   map[string]bool
	changed chan struct{}
}

func (s *set) State() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(strings.Join(s.sorted(), " "))
}

func (s *set) sorted() []string {
	words := make([]string, 0, len(s.words))
	for word := range s.words {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

func (s *set) Merge(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, word := range strings.Fields(string(b)) {
		s.words[word] = true
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func runSpeaker(encoded string) error {
	var c speakerConfig
	if err := json.Unmarshal([]byte(encoded), &c); err != nil {
		return err
	}
	key, err := hex.DecodeString(c.Key)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	replica := &set{words: map[string]bool{}, changed: make(chan struct{}, 1)}
	list, err := Start(ctx, Config{
		Name: c.Name, Bind: c.Bind, Port: 7946, Key: key,
		Peers:   func() []netip.Addr { return c.Peers },
		Replica: replica,
		Log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: testLogLevel()})),
	})
	if err != nil {
		return err
	}
	commands := make(chan string)
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			commands <- lines.Text()
		}
		close(commands)
	}()
	out := json.NewEncoder(os.Stdout)
	for {
		v := view{At: time.Now(), Quorum: list.Quorum(), State: strings.Fields(string(replica.State())), MACs: map[string]int{}}
		for _, m := range list.Members() {
			name := m.Name
			if m.Leaving {
				name += "!"
			}
			v.Members = append(v.Members, name)
			v.MACs[m.Name] = len(m.MACs)
		}
		if err := out.Encode(v); err != nil {
			return err
		}
		select {
		case <-list.Changed():
		case <-replica.changed:
		case <-ctx.Done():
			return nil
		case command, ok := <-commands:
			if !ok {
				return nil
			}
			switch verb, word, _ := strings.Cut(command, " "); verb {
			case "say":
				replica.Merge([]byte(word))
				list.Broadcast([]byte(word))
			case "leaving":
				list.Update(true, []net.HardwareAddr{{2, 0, 0, 0, 0, 1}}, []string{"eth0"})
			case "leave":
				return list.Leave(ctx)
			}
		}
	}
}

// lan is a bridge with one namespace per node.
type lan struct {
	t      testing.TB
	v6     bool
	home   netns.NsHandle
	links  *netlink.Handle
	bridge *netlink.Bridge
	key    string
	nodes  []*machine
}

// newLAN makes a bridge and count nodes in namespaces of their own; the names of interfaces exist only there.
func newLAN(t testing.TB, v6 bool, count int) *lan {
	t.Helper()
	l := &lan{t: t, v6: v6, key: strings.Repeat("ab", KeySize)}
	l.home = newNamespace(t)
	links, err := netlink.NewHandleAt(l.home)
	must(t, err)
	t.Cleanup(links.Close)
	l.links = links
	l.bridge = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
	must(t, links.LinkAdd(l.bridge))
	must(t, links.LinkSetUp(l.bridge))
	for i := range count {
		l.nodes = append(l.nodes, l.newMachine(i+1))
	}
	return l
}

// newNamespace returns a network namespace that no process is in.
func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	must(t, onOwnThread(func() (err error) {
		ns, err = netns.New()
		return err
	}))
	t.Cleanup(func() { ns.Close() })
	return ns
}

func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, so that its namespace does not leak
		done <- f()
	}()
	return <-done
}

func inside(ns netns.NsHandle, f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

// machine is a machine on the LAN, and the speaker that runs on it.
type machine struct {
	lan   *lan
	name  string
	addr  netip.Addr
	ns    netns.NsHandle
	port  netlink.Link
	cmd   *exec.Cmd
	stdin io.WriteCloser
	// exited is closed when the speaker's process has ended.
	exited chan struct{}
	// withoutRaw takes CAP_NET_RAW from the speakers that are started from now on.
	withoutRaw bool

	mu    sync.Mutex
	views []view
	log   strings.Builder
	fresh chan struct{}
}

func (l *lan) newMachine(i int) *machine {
	t := l.t
	t.Helper()
	n := &machine{lan: l, name: fmt.Sprintf("node-%d", i), ns: newNamespace(t), fresh: make(chan struct{}, 1)}
	n.addr = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))
	bits := 24
	if l.v6 {
		n.addr, bits = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)), 64
	}
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: n.name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(n.ns),
	}
	must(t, l.links.LinkAdd(cable))
	port, err := l.links.LinkByName(n.name)
	must(t, err)
	n.port = port
	must(t, l.links.LinkSetMaster(port, l.bridge))
	must(t, l.links.LinkSetUp(port))
	links, err := netlink.NewHandleAt(n.ns)
	must(t, err)
	defer links.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := links.LinkByName(name)
		must(t, err)
		must(t, links.LinkSetUp(link))
		if name == "eth0" {
			address := &netlink.Addr{
				IPNet: &net.IPNet{IP: n.addr.AsSlice(), Mask: net.CIDRMask(bits, n.addr.BitLen())},
				Flags: unix.IFA_F_NODAD,
			}
			must(t, links.AddrAdd(link, address))
		}
	}
	return n
}

// cut takes the node off the LAN without its noticing, as a loss of power looks to the others. It returns at the
// moment when that happens; to take the port off the bridge would wait for the kernel's lock before, and for a
// grace period afterwards, which is seconds on a busy machine.
func (n *machine) cut() { n.setPort(0) }

func (n *machine) plug() { n.setPort(3) }

// setPort sets the state of the bridge's port: 0 is disabled, 3 is forwarding.
func (n *machine) setPort(state byte) {
	n.lan.t.Helper()
	must(n.lan.t, inside(n.lan.home, func() error {
		request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		message := nl.NewIfInfomsg(unix.AF_BRIDGE)
		message.Index = int32(n.port.Attrs().Index)
		request.AddData(message)
		port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
		port.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{state})
		request.AddData(port)
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	}))
}

// start runs a speaker; peers are what its API lists.
func (n *machine) start(peers ...*machine) {
	t := n.lan.t
	t.Helper()
	config := speakerConfig{Name: n.name, Bind: n.addr, Key: n.lan.key}
	for _, p := range peers {
		config.Peers = append(config.Peers, p.addr)
	}
	encoded, err := json.Marshal(config)
	must(t, err)
	n.cmd = exec.Command("/proc/self/exe", "-test.run=^$")
	n.cmd.Env = append(os.Environ(), speakerEnv+"="+string(encoded))
	n.stdin, err = n.cmd.StdinPipe()
	must(t, err)
	stdout, err := n.cmd.StdoutPipe()
	must(t, err)
	stderr, err := n.cmd.StderrPipe()
	must(t, err)
	t.Cleanup(func() {
		if n.logged("DATA RACE")+n.logged("panic:") > 0 {
			n.dump()
			t.Errorf("%s has crashed, or has a data race", n.name)
		}
	})
	n.exited = startIn(t, n.ns, n.cmd, n.withoutRaw)
	n.mu.Lock()
	n.views = nil
	n.mu.Unlock()
	go func() {
		for decoder := json.NewDecoder(stdout); ; {
			var v view
			if decoder.Decode(&v) != nil {
				return
			}
			n.mu.Lock()
			n.views = append(n.views, v)
			n.mu.Unlock()
			select {
			case n.fresh <- struct{}{}:
			default:
			}
		}
	}()
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			n.mu.Lock()
			n.log.WriteString(lines.Text() + "\n")
			n.mu.Unlock()
		}
	}()
}

// startIn starts the command from a thread in the namespace, which its process inherits, and kills it at the end of
// the test. The thread waits for the process: its end would end the process too, by Pdeathsig.
func startIn(t testing.TB, ns netns.NsHandle, cmd *exec.Cmd, withoutRaw bool) (exited chan struct{}) {
	t.Helper()
	exited = make(chan struct{})
	started := make(chan error)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	go func() {
		defer close(exited)
		runtime.LockOSThread()
		err := netns.Set(ns)
		if err == nil && withoutRaw {
			err = unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_RAW, 0, 0, 0)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	must(t, <-started)
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
	})
	return exited
}

// burn keeps every CPU busy, with several processes for each, until the test ends.
func burn(t testing.TB) {
	t.Helper()
	home, err := netns.Get()
	must(t, err)
	t.Cleanup(func() { home.Close() })
	for range 4 * runtime.NumCPU() {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), burnEnv+"=1", "GOMAXPROCS=1")
		startIn(t, home, cmd, false)
	}
}

func (n *machine) say(command string) {
	n.lan.t.Helper()
	_, err := io.WriteString(n.stdin, command+"\n")
	must(n.lan.t, err)
}

func (n *machine) signal(s syscall.Signal) { must(n.lan.t, n.cmd.Process.Signal(s)) }

// wait returns the first view after since for which ok holds.
func (n *machine) wait(since time.Time, limit time.Duration, what string, ok func(view) bool) view {
	t := n.lan.t
	t.Helper()
	deadline := time.After(limit)
	for {
		n.mu.Lock()
		for _, v := range n.views {
			if v.At.After(since) && ok(v) {
				n.mu.Unlock()
				return v
			}
		}
		n.mu.Unlock()
		select {
		case <-n.fresh:
		case <-deadline:
			n.dump()
			t.Fatalf("%s: not within %s: %s", n.name, limit, what)
		}
	}
}

// never fails the test if there is a view since then for which ok holds.
func (n *machine) never(since time.Time, what string, ok func(view) bool) {
	n.lan.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.views {
		if v.At.After(since) && ok(v) {
			n.lan.t.Errorf("%s: %s: %v", n.name, what, v)
		}
	}
}

func (n *machine) dump() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.views {
		n.lan.t.Logf("%s %s %v quorum=%v state=%v", n.name, v.At.Format("05.000"), v.Members, v.Quorum, v.State)
	}
	n.lan.t.Log(n.log.String())
}

func (n *machine) logged(text string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.log.String(), text)
}

// measurePauses adds up, until stop is called, the time for which this process did not get to run although it
// wanted to. What the machine takes from all its processes can't be held against the speakers.
func measurePauses() (stop func() time.Duration) {
	const interval, normal = 5 * time.Millisecond, 50 * time.Millisecond
	quit, total := make(chan struct{}), make(chan time.Duration)
	go func() {
		var sum time.Duration
		for last := time.Now(); ; {
			select {
			case <-quit:
				total <- sum
				return
			case <-time.After(interval):
			}
			if gap := time.Since(last); gap > normal {
				sum += gap
			}
			last = time.Now()
		}
	}()
	return func() time.Duration {
		close(quit)
		return <-total
	}
}

func sees(names ...string) func(view) bool {
	return func(v view) bool { return slices.Equal(v.Members, names) }
}

func lacks(name string) func(view) bool {
	return func(v view) bool { return !slices.Contains(v.Members, name) && !slices.Contains(v.Members, name+"!") }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testLogLevel() slog.Level {
	if os.Getenv("MEMBERSHIP_TEST_DEBUG") != "" {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
