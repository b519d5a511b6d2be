package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// order is what a proxy is told, one JSON object a line. Services and slices replace those of their names.
type order struct {
	Service *corev1.Service            `json:",omitempty"`
	Slice   *discoveryv1.EndpointSlice `json:",omitempty"`
	Sync    bool                       `json:",omitempty"` // put it in the kernel and report; the first says that all that exists was told
}

// report is a proxy's answer to an order to sync, one JSON object a line.
type report struct {
	Kernel time.Duration // to change the rules
	Event  time.Duration // from the order's Service or slice until they were changed
}

// proxy is a process that keeps the rules of a node.
type proxy struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	orders  *json.Encoder
	reports *json.Decoder
}

// start runs a proxy on the site's node.
func (s *site) start(ctx context.Context, program []string) (*proxy, error) {
	args := append([]string{"--net=/run/netns/" + s.node, "--"}, program...)
	cmd := exec.CommandContext(ctx, "nsenter", append(args, nodeName, nodeAddr, podCIDR)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &proxy{cmd: cmd, stdin: stdin, orders: json.NewEncoder(stdin), reports: json.NewDecoder(stdout)}, nil
}

// fill loads n Services and returns how long that took. The slices of some more are told already, so that one Service is one event.
func (p *proxy) fill(n, more int) (time.Duration, error) {
	for i := range n + more {
		served := i == n/2
		if err := p.orders.Encode(order{Slice: slice(i, 0, served)}); err != nil {
			return 0, err
		}
		if i >= n {
			continue
		}
		if err := p.orders.Encode(order{Service: service(i, served)}); err != nil {
			return 0, err
		}
	}
	r, err := p.sync(order{})
	return r.Event, err
}

func (p *proxy) sync(o order) (report, error) {
	o.Sync = true
	if err := p.orders.Encode(o); err != nil {
		return report{}, err
	}
	var r report
	if err := p.reports.Decode(&r); err != nil {
		return report{}, fmt.Errorf("no report: %w", err)
	}
	return r, nil
}

// memory is the resident set of the proxy in bytes.
func (p *proxy) memory() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("no VmRSS in the status of process %d", p.cmd.Process.Pid)
	}
	kib, err := strconv.Atoi(fields[0])
	return float64(kib) * 1024, err
}

// end ends the proxy; its rules stay.
func (p *proxy) end() error {
	p.stdin.Close()
	return p.cmd.Wait()
}

// largest is what the largest process had at any time, in bytes, of the proxy that ended and those that it ran.
func (p *proxy) largest() float64 {
	return float64(p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024
}
