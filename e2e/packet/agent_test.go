package packet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// An agent is what the speaker is to the dataplane: a program on a node that feeds an engine. It is this test binary again, told by its
// environment, and takes orders from its standard input, one JSON object a line.

const agentVariable = "STEELYARD_PACKET_AGENT"

// settings say how an agent runs.
type settings struct {
	dataplane.Config
	Backend string // iptables or nftables
	Healthz netip.AddrPort
}

// order is one thing that an agent is told. Exactly one of the fields but Key is set.
type order struct {
	Key           string                     `json:",omitempty"`
	Service       *corev1.Service            `json:",omitempty"`
	DeleteService bool                       `json:",omitempty"`
	Slice         *discoveryv1.EndpointSlice `json:",omitempty"`
	DeleteSlice   bool                       `json:",omitempty"`
	Node          *corev1.Node               `json:",omitempty"`
	Served        []netip.Prefix             `json:",omitempty"` // the pools' addresses
	Sync          int                        `json:",omitempty"` // answer with the number when all before is in the kernel
}

// report is what an agent says, one JSON object a line.
type report struct {
	Synced int    `json:",omitempty"`
	Event  string `json:",omitempty"`
}

// agent is one that runs.
type agent struct {
	node   *host
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	orders *json.Encoder
	synced chan int
	exited chan struct{}
	syncs  int

	mu     sync.Mutex
	events []string
	log    bytes.Buffer
}

func startAgent(h *host, s settings) (*agent, error) {
	config, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	a := &agent{node: h, cmd: isolated(os.Args[0]), synced: make(chan int), exited: make(chan struct{})}
	a.cmd.Env = append(os.Environ(), agentVariable+"="+string(config))
	a.cmd.Stderr = a
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.orders = json.NewEncoder(a.stdin)
	if err := h.do(a.cmd.Start); err != nil {
		return nil, fmt.Errorf("agent of %s: %w", h.name, err)
	}
	go a.listen(stdout)
	return a, nil
}

func (a *agent) listen(stdout io.Reader) {
	defer close(a.exited)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintf(a, "agent said %q: %v\n", lines.Text(), err)
			continue
		}
		if r.Event != "" {
			a.mu.Lock()
			a.events = append(a.events, r.Event)
			a.mu.Unlock()
		}
		if r.Synced != 0 {
			a.synced <- r.Synced
		}
	}
	_ = a.cmd.Wait()
}

// Write keeps what the agent logs.
func (a *agent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(p)
}

func (a *agent) logged() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// told returns the events that the agent reported so far.
func (a *agent) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.events...)
}

func (a *agent) order(o order) error {
	if err := a.orders.Encode(o); err != nil {
		return fmt.Errorf("agent of %s: %w; it logged:\n%s", a.node.name, err, a.logged())
	}
	return nil
}

// sync waits until all orders so far are carried out in the kernel.
func (a *agent) sync() error {
	a.syncs++
	if err := a.order(order{Sync: a.syncs}); err != nil {
		return err
	}
	// Busy machines take seconds for the grace periods of RCU that the kernel's transactions wait for.
	const limit = 4 * patience
	deadline := time.After(limit)
	for {
		select {
		case n := <-a.synced:
			if n == a.syncs {
				return nil
			}
		case <-a.exited:
			return fmt.Errorf("agent of %s ended; it logged:\n%s", a.node.name, a.logged())
		case <-deadline:
			return fmt.Errorf("agent of %s did not bring its orders into the kernel in %s; it logged:\n%s", a.node.name, limit, a.logged())
		}
	}
}

// kill ends the agent as a crash does.
func (a *agent) kill() error {
	err := a.cmd.Process.Kill()
	for {
		select {
		case <-a.synced:
		case <-a.exited:
			if errors.Is(err, os.ErrProcessDone) {
				return nil
			}
			return err
		}
	}
}
