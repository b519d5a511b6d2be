package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Daemon is a program that runs on a host until it is stopped or the lab ends.
type Daemon struct {
	Name string
	PID  int // as this process sees it
	done chan struct{}
	err  error
}

// Start starts a program on the host, in the lab's process namespace so that it ends with the lab. Its output is appended to the file log.
func (h Host) Start(log string, args ...string) (*Daemon, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	enter := []string{"-t", strconv.Itoa(h.Supervisor), "-m", "-p", "--", "nsenter", "--net=/run/netns/" + h.Name, "--"}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", h.Name, args[0], err)
	}
	d := &Daemon{Name: args[0][strings.LastIndex(args[0], "/")+1:] + " on " + h.Name, PID: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// Done is closed when the program has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Err tells how the program ended, once Done is closed.
func (d *Daemon) Err() error { return d.err }

// Signal sends a signal to the program and its children.
func (d *Daemon) Signal(s syscall.Signal) error {
	if err := syscall.Kill(-d.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", d.Name, err)
	}
	return nil
}

// Stop sends a signal that ends the program, and waits until it has.
func (d *Daemon) Stop(ctx context.Context, s syscall.Signal) error {
	if err := d.Signal(s); err != nil {
		return err
	}
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", d.Name, ctx.Err())
	}
}
