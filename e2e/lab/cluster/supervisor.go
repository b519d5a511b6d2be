package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A lab lives inside one process, the supervisor: process 1 of its own process, mount and network namespaces. However
// it ends, the kernel ends every process of the lab with it and drops the namespaces and mounts.

// spec is what Up hands to the supervisor.
type spec struct {
	Name     string
	Dir      string
	Programs string
	Images   []string
	Nodes    int
}

type supervisor struct {
	spec
	lab   *Lab
	ca    *authority
	procs *processes
}

const (
	stageEnter = "steelyard-lab-enter"
	stageRun   = "steelyard-lab"
)

func init() {
	// Others find the lab's network namespace by the supervisor's process, that is, by its first thread. Locked to the
	// main goroutine, that thread is never lent to one that goes to a host's namespace.
	if os.Args[0] == stageRun {
		runtime.LockOSThread()
	}
}

// Supervise takes over the process if Up started it as a lab's supervisor, and returns at once otherwise. A program
// that calls Up calls it first thing in main (or TestMain).
func Supervise() {
	switch os.Args[0] {
	case stageEnter:
		fail(enter(os.Args[1]))
	case stageRun:
		fail(supervise(os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// enter moves the process into the lab's cgroup, makes that the root of a cgroup namespace, and executes the second
// stage: a namespace that a thread enters becomes the process's own only by exec.
func enter(specFile string) error {
	s, err := readSpec(specFile)
	if err != nil {
		return err
	}
	if err := joinCgroup(s.Name); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	return unix.Exec("/proc/self/exe", []string{stageRun, specFile}, os.Environ())
}

func readSpec(file string) (spec, error) {
	var s spec
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

func supervise(specFile string) error {
	sp, err := readSpec(specFile)
	if err != nil {
		return err
	}
	go endWithUp()
	ctx := context.Background()
	if err := privateMounts(); err != nil {
		return err
	}
	s := &supervisor{
		spec:  sp,
		procs: &processes{logs: filepath.Join(sp.Dir, "logs"), pids: map[int]bool{}},
	}
	s.lab = &Lab{Name: sp.Name, Dir: sp.Dir, Nodes: sp.Nodes, supervisor: os.Getpid()}
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(sp.Dir, "ready"), nil, 0o644); err != nil {
		return err
	}
	go func() {
		for range time.Tick(5 * time.Second) {
			s.procs.reap()
		}
	}()
	select {}
}

// detach is what Up writes to its tether when the lab shall outlive it.
const detach = 'd'

// endWithUp ends the lab when the process that started it ends, also by SIGKILL, unless that process said detach.
func endWithUp() {
	one := make([]byte, 1)
	if n, _ := os.Stdin.Read(one); n == 0 || one[0] != detach {
		os.Exit(0)
	}
}

func (s *supervisor) start(ctx context.Context) error {
	if err := os.MkdirAll(s.procs.logs, 0o755); err != nil {
		return err
	}
	if err := s.wire(); err != nil {
		return err
	}
	var err error
	if s.ca, err = newAuthority(filepath.Join(s.Dir, "pki")); err != nil {
		return err
	}
	var all errgroup.Group
	all.Go(func() error { return s.startControl(ctx) })
	for i := 1; i <= s.Nodes; i++ {
		all.Go(func() error { return s.startNode(ctx, i) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	client, err := s.lab.Clientset()
	if err != nil {
		return err
	}
	if err := s.lab.WaitFor(ctx, "all nodes to be Ready", func(ctx context.Context) error {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range nodes.Items {
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if ready < s.Nodes {
			return fmt.Errorf("%d of %d are", ready, s.Nodes)
		}
		return nil
	}); err != nil {
		return err
	}
	// What a controller does in clusters that leave the choice of the pods' networks to Kubernetes.
	for i := 1; i <= s.Nodes; i++ {
		patch := fmt.Sprintf(`{"spec": {"podCIDR": %[1]q, "podCIDRs": [%[1]q, %[2]q]}}`, podCIDR4(i), podCIDR6(i))
		if _, err := client.CoreV1().Nodes().Patch(ctx, NodeName(i), types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) program(name string) string { return filepath.Join(s.Programs, name) }

// privateMounts gives the lab its own /run, /proc and the folders that kubelet writes to whatever its flags say.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	errs := []error{unix.Mount("proc", "/proc", "proc", 0, "")}
	for _, dir := range []string{"/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni"} {
		errs = append(errs, os.MkdirAll(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	}
	errs = append(errs, remountCgroups())
	return errors.Join(errs...)
}
