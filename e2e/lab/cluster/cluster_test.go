package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/lab/build"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
)

func TestMain(m *testing.M) {
	cluster.Supervise()
	if name := os.Getenv("LAB_TEST_UP"); name != "" { // the child that TestKilledHalfWay kills
		_, err := cluster.Up(context.Background(), cluster.Options{Name: name, Nodes: 1, Detached: true})
		fmt.Println("up:", err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func up(t *testing.T, name string, nodes int) *cluster.Lab {
	t.Helper()
	lab, err := cluster.Up(t.Context(), cluster.Options{Name: name, Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// traces lists what of a lab is left: processes, mounts, cgroups, files.
func traces(t *testing.T, name string) (found []string) {
	t.Helper()
	cache, err := build.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "labs", name)
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if text, err := os.ReadFile(c); err == nil && bytes.Contains(text, []byte(dir+"/")) {
			found = append(found, c+": "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/steelyard-lab-" + name)
	if err != nil {
		t.Fatal(err)
	}
	found = append(found, cgroups...)
	if _, err := os.Stat(dir); err == nil {
		found = append(found, dir)
	}
	return found
}

func TestTwoLabsSideBySide(t *testing.T) {
	a, b := up(t, "side-a", 1), up(t, "side-b", 1)
	if err := a.Down(); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, "side-a"); len(left) > 0 {
		t.Errorf("taken down, the lab left\n%s", strings.Join(left, "\n"))
	}
	if _, err := b.Kubectl(t.Context(), "get", "--raw", "/readyz"); err != nil {
		t.Errorf("the second lab suffered from the first one's end: %v", err)
	}
}

func TestStartsInTime(t *testing.T) {
	if _, err := build.Programs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := build.Images(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	up(t, "in-time", 3)
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("a lab of 3 nodes took %s to start", took)
	}
}

func TestKilledHalfWay(t *testing.T) {
	const name = "half-way"
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), "LAB_TEST_UP="+name)
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	cache, err := build.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(cache, "labs", name, "logs", "node-1-containerd.log")
	deadline := time.Now().Add(5 * time.Minute)
	for {
		if _, err := os.Stat(log); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lab never came half-way")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := syscall.Kill(-child.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	if err := cluster.Clean(name); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, name); len(left) > 0 {
		t.Errorf("killed half-way, the lab left\n%s", strings.Join(left, "\n"))
	}
}
