// Package host works on the machines of a lab from outside: it runs commands on them, opens sockets on them and watches
// their packets.
package host

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// Host is one machine of a lab: a network namespace named Name in the mount namespace of process Supervisor.
type Host struct {
	Name       string
	Supervisor int
}

// Command prepares a command that runs on the host. Cancelling ctx kills it.
func (h Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(h.Supervisor), "-m", "--", "nsenter", "--net=/run/netns/" + h.Name, "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a command on the host and returns what it printed; the error holds its standard error.
func (h Host) Run(ctx context.Context, args ...string) (string, error) {
	cmd := h.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %s: %w: %s", h.Name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Do calls f on a thread of its own that is in the host's network namespace; sockets that f opens stay there.
func (h Host) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so no other goroutine finds itself on the host.
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/root/run/netns/%s", h.Supervisor, h.Name))
		if err != nil {
			result <- fmt.Errorf("host %s: %w", h.Name, err)
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("host %s: %w", h.Name, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// Dial connects from the host. The address must be an IP and a port: names would be resolved outside the lab.
func (h Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// KillPod sends a signal to the program named comm in a pod.
func KillPod(pod, comm string, signal syscall.Signal) error {
	pid, err := PodProcess(pod, comm)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return fmt.Errorf("kill %s of pod %s: %w", comm, pod, err)
	}
	return nil
}

// PodProcess returns the process of the program named comm in a pod, found by the POD_NAME in its environment.
func PodProcess(pod, comm string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || strings.TrimSpace(string(name)) != comm {
			continue
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(append([]byte{0}, environ...), []byte("\x00POD_NAME="+pod+"\x00")) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process %s with POD_NAME=%s runs", comm, pod)
}
