package cluster

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// processes runs the lab's programs as a machine's init would: each is started again when it ends.
type processes struct {
	logs string
	mu   sync.Mutex
	pids map[int]bool
}

// run starts a program on a machine under a host name of its own and keeps it running until ctx ends. Its output goes
// to MACHINE-NAME.log.
func (p *processes) run(ctx context.Context, machine, name string, args ...string) error {
	log, err := os.Create(filepath.Join(p.logs, machine+"-"+name+".log"))
	if err != nil {
		return err
	}
	// Not `ip netns exec`: it mounts /sys anew, and kubelet then finds no cgroups.
	enter := []string{"--net=/run/netns/" + machine, "--", "unshare", "--uts", "--", "sh", "-c", `hostname "$0" && exec "$@"`, machine}
	args = append(enter, args...)
	first, err := p.start(log, args)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", name, machine, err)
	}
	go func() {
		for cmd := first; ; {
			err := cmd.Wait()
			p.forget(cmd)
			fmt.Fprintf(log, "lab: %s ended: %v\n", name, err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			if cmd, err = p.start(log, args); err != nil {
				fmt.Fprintf(log, "lab: %s can't be started again: %v\n", name, err)
				return
			}
		}
	}()
	return nil
}

func (p *processes) start(log *os.File, args []string) (*exec.Cmd, error) {
	cmd := exec.Command("nsenter", args...)
	cmd.Stdout, cmd.Stderr = log, log
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.pids[cmd.Process.Pid] = true
	return cmd, nil
}

func (p *processes) forget(cmd *exec.Cmd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pids, cmd.Process.Pid)
}

// reap collects the orphans that process 1 inherits, such as the shims of containers, and leaves the processes that
// Wait is called for alone.
func (p *processes) reap() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || p.pids[pid] {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name in parentheses may hold spaces; state and parent follow it.
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		if f := strings.Fields(string(rest)); len(f) > 1 && f[0] == "Z" && f[1] == "1" {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// tail returns the last lines of a file, for error messages.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var last []string
	for s := bufio.NewScanner(f); s.Scan(); {
		last = append(last, s.Text())
		if len(last) > lines {
			last = last[1:]
		}
	}
	return strings.Join(last, "\n")
}
