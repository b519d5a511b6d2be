package host

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
)

// Capture is a running tcpdump on one of a host's interfaces.
type Capture struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	read   chan struct{}

	mu      sync.Mutex
	packets []string
}

// Capture records the packets that match a pcap filter, from the moment it returns.
func (h Host) Capture(ctx context.Context, iface, filter string) (*Capture, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &Capture{cancel: cancel, read: make(chan struct{})}
	c.cmd = h.Command(ctx, "tcpdump", "-i", iface, "-l", "-n", "-e", "--immediate-mode", filter)
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	said := bufio.NewScanner(stderr)
	var complaints []string
	for said.Scan() && !strings.HasPrefix(said.Text(), "listening on") {
		complaints = append(complaints, said.Text())
	}
	if !strings.HasPrefix(said.Text(), "listening on") {
		cancel()
		_ = c.cmd.Wait() // what it printed says more
		return nil, fmt.Errorf("tcpdump on %s of %s: %s", iface, h.Name, strings.Join(complaints, "; "))
	}
	go func() {
		_, _ = io.Copy(io.Discard, stderr) // its statistics
	}()
	go func() {
		defer close(c.read)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			c.mu.Lock()
			c.packets = append(c.packets, lines.Text())
			c.mu.Unlock()
		}
	}()
	return c, nil
}

// Packets returns what was captured until now, one line for each packet, as tcpdump prints them.
func (c *Capture) Packets() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.packets...)
}

// Stop ends the capture and returns all packets.
func (c *Capture) Stop() []string {
	c.cancel()
	<-c.read
	_ = c.cmd.Wait() // it was killed
	return c.Packets()
}
