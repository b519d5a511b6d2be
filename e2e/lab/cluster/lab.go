// Package cluster runs a real Kubernetes cluster in network namespaces of one machine: etcd, the control plane, nodes
// with kubelet and containerd, a client on their LAN, and a router with a remote host behind it.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/e2e/lab/build"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// Options choose what Up starts.
type Options struct {
	Name  string // letters, digits and dashes; two labs with different names run side by side
	Nodes int    // at least 1
	// Detached labs live until Down; others end with the process that called Up.
	Detached bool
}

// Lab is a running lab.
type Lab struct {
	Name  string
	Dir   string
	Nodes int

	programs   string
	supervisor int            // process id, as this process sees it
	tether     io.WriteCloser // closing it ends a lab that is not detached
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,19}$`)

// Up builds what is missing, starts a lab and returns when its nodes are Ready.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if !validName.MatchString(o.Name) {
		return nil, fmt.Errorf("lab name %q: use up to 20 lower-case letters, digits and dashes", o.Name)
	}
	if o.Nodes < 1 || o.Nodes > 50 {
		return nil, fmt.Errorf("%d nodes: a lab has 1 to 50", o.Nodes)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab needs root: it makes network namespaces and runs containers")
	}
	if err := build.Packages(ctx); err != nil {
		return nil, err
	}
	programs, err := build.Programs(ctx)
	if err != nil {
		return nil, err
	}
	images, err := build.Images(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := labDir(o.Name)
	if err != nil {
		return nil, err
	}
	if old, err := Find(o.Name); err == nil {
		return nil, fmt.Errorf("lab %q already runs (process %d): use it, or take it down first", o.Name, old.supervisor)
	}
	if err := clean(o.Name, dir); err != nil {
		return nil, err
	}
	lab := &Lab{Name: o.Name, Dir: dir, Nodes: o.Nodes, programs: programs}
	if err := lab.launch(ctx, spec{Name: o.Name, Dir: dir, Programs: programs, Images: images, Nodes: o.Nodes}, o.Detached); err != nil {
		return nil, errors.Join(err, lab.Down())
	}
	return lab, nil
}

func (l *Lab) launch(ctx context.Context, s spec, detached bool) error {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	specFile := filepath.Join(l.Dir, "spec.json")
	if err := os.WriteFile(specFile, text, 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(l.Dir, "supervisor.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", specFile)
	cmd.Args[0] = stageEnter
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	if l.tether, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the lab's supervisor: %w", err)
	}
	l.supervisor = cmd.Process.Pid
	if err := os.WriteFile(filepath.Join(l.Dir, "pid"), []byte(strconv.Itoa(l.supervisor)), 0o644); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if _, err := os.Stat(filepath.Join(l.Dir, "ready")); err == nil {
			if detached {
				_, err = l.tether.Write([]byte{detach})
			}
			return err
		}
		select {
		case err := <-ended:
			return fmt.Errorf("lab %s did not start: %w\n%s", l.Name, err, tail(log.Name(), 20))
		case <-ctx.Done():
			return fmt.Errorf("lab %s did not start: %w\n%s", l.Name, ctx.Err(), tail(log.Name(), 20))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Find returns the running lab of that name.
func Find(name string) (*Lab, error) {
	dir, err := labDir(name)
	if err != nil {
		return nil, err
	}
	s, err := readSpec(filepath.Join(dir, "spec.json"))
	if err != nil {
		return nil, fmt.Errorf("no lab %q runs", name)
	}
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return nil, fmt.Errorf("no lab %q runs", name)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil || !supervises(pid, dir) {
		return nil, fmt.Errorf("no lab %q runs", name)
	}
	return &Lab{Name: name, Dir: dir, Nodes: s.Nodes, programs: s.Programs, supervisor: pid}, nil
}

// supervises tells a lab's supervisor from a stranger that got its process id later.
func supervises(pid int, dir string) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(string(cmdline), "\x00")
	return err == nil && len(args) > 1 && (args[0] == stageRun || args[0] == stageEnter) && args[1] == filepath.Join(dir, "spec.json")
}

// Down ends the lab and removes its files; what it leaves is the cache of builds.
func (l *Lab) Down() error {
	if l.tether != nil {
		l.tether.Close()
	}
	if l.supervisor != 0 && supervises(l.supervisor, l.Dir) {
		if err := syscall.Kill(l.supervisor, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill the supervisor of lab %s: %w", l.Name, err)
		}
		for supervises(l.supervisor, l.Dir) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	return clean(l.Name, l.Dir)
}

// Clean removes what a lab of that name left behind when it was killed.
func Clean(name string) error {
	dir, err := labDir(name)
	if err != nil {
		return err
	}
	return clean(name, dir)
}

// clean removes what a lab that no longer runs has left on the disk and in the cgroup hierarchies. The kernel may still
// be ending its last processes, so it tries for a while.
func clean(name, dir string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := errors.Join(removeCgroups(name), os.RemoveAll(dir))
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func labDir(name string) (string, error) {
	cache, err := build.CacheDir()
	return filepath.Join(cache, "labs", name), err
}

// Host returns a machine of the lab by its name.
func (l *Lab) Host(name string) host.Host { return host.Host{Name: name, Supervisor: l.supervisor} }

// Cut pulls a machine's cable to the LAN: it goes silent without a word, as a node that loses power does.
func (l *Lab) Cut(ctx context.Context, machine string) error { return l.port(ctx, machine, "down") }

// Isolate has the switch drop whatever comes from or goes to a machine, whose link stays up: it is alone and can't tell.
func (l *Lab) Isolate(ctx context.Context, machine string) error {
	return l.onSwitch(ctx, "bridge", "link", "set", "dev", machine, "state", "0")
}

// Mend undoes Cut and Isolate.
func (l *Lab) Mend(ctx context.Context, machine string) error {
	if err := l.port(ctx, machine, "up"); err != nil {
		return err
	}
	// A port that has just come up is forwarding by itself, a moment later; until then its state can't be set.
	return l.WaitFor(ctx, "the switch to forward for "+machine, func(ctx context.Context) error {
		return l.onSwitch(ctx, "bridge", "link", "set", "dev", machine, "state", "3")
	})
}

func (l *Lab) port(ctx context.Context, machine, state string) error {
	return l.onSwitch(ctx, "ip", "link", "set", machine, state)
}

// onSwitch runs a command where the machines' cables end.
func (l *Lab) onSwitch(ctx context.Context, args ...string) error {
	enter := []string{"-t", strconv.Itoa(l.supervisor), "-n", "-m", "--"}
	if out, err := exec.CommandContext(ctx, "nsenter", append(enter, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Kubeconfig is the path of the administrator's kubeconfig; its server is reached from the Control host.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.Dir, "pki", "admin.kubeconfig") }

// Config returns an administrator's client configuration that works outside the lab's network.
func (l *Lab) Config() *rest.Config {
	server, _ := lan(controlNumber)
	pki := filepath.Join(l.Dir, "pki")
	return &rest.Config{
		Host: fmt.Sprintf("https://%s:6443", server),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile: filepath.Join(pki, "ca.crt"), CertFile: filepath.Join(pki, "admin.crt"), KeyFile: filepath.Join(pki, "admin.key"),
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.Host(Control).Dial(ctx, network, address)
		},
		QPS: -1,
	}
}

// Clientset returns a client for Kubernetes' own kinds.
func (l *Lab) Clientset() (*kubernetes.Clientset, error) { return kubernetes.NewForConfig(l.Config()) }

// Program returns the path of a program that the lab was built with, such as kubectl or helm.
func (l *Lab) Program(name string) string { return filepath.Join(l.programs, name) }

// Kubectl runs kubectl and returns what it printed.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return l.Host(Control).Run(ctx, append([]string{l.Program("kubectl"), "--kubeconfig", l.Kubeconfig()}, args...)...)
}

// WaitFor calls f until it returns nil, at most a minute long unless ctx has a deadline of its own, and then reports
// f's last error.
func (l *Lab) WaitFor(ctx context.Context, what string, f func(context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
	}
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
