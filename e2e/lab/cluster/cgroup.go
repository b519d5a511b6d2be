package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

func cgroupName(lab string) string { return "steelyard-lab-" + lab }

// hierarchies returns the mount points of the version 1 controllers with their mount options, or the one of version 2
// with none.
func hierarchies() (map[string]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[1], cgroupRoot) {
			continue
		}
		switch f[2] {
		case "cgroup2":
			if f[1] == cgroupRoot {
				return map[string]string{cgroupRoot: ""}, nil
			}
		case "cgroup":
			var options []string
			for _, o := range strings.Split(f[3], ",") {
				if !slices.Contains([]string{"rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"}, o) && !strings.HasPrefix(o, "release_agent=") {
					options = append(options, o)
				}
			}
			if len(options) == 1 && strings.HasPrefix(options[0], "name=") {
				options = append([]string{"none"}, options...)
			}
			found[f[1]] = strings.Join(options, ",")
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted under %s", cgroupRoot)
	}
	return found, nil
}

// joinCgroup moves this process into the lab's own cgroup in every hierarchy, so that what kubelet and runc make there
// can be found and removed.
func joinCgroup(lab string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for mount := range all {
		dir := filepath.Join(mount, cgroupName(lab))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// An empty cpuset admits no process.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if parent, err := os.ReadFile(filepath.Join(mount, f)); err == nil && all[mount] != "" {
				if err := os.WriteFile(filepath.Join(dir, f), parent, 0o644); err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join %s: %w", dir, err)
		}
	}
	return nil
}

// remountCgroups replaces the machine's hierarchies by the view from the lab's cgroup namespace, in which the lab's
// cgroup is the root.
func remountCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", cgroupRoot, err)
	}
	if _, v2 := all[cgroupRoot]; v2 {
		if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		return delegateControllers()
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for mount, options := range all {
		if err := os.MkdirAll(mount, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", mount, "cgroup", 0, options); err != nil {
			return fmt.Errorf("mount %s (%s): %w", mount, options, err)
		}
	}
	return nil
}

// delegateControllers lets version 2 pass its controllers on to children, which it refuses while the parent has
// processes of its own.
func delegateControllers() error {
	leaf := filepath.Join(cgroupRoot, "supervisor")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return err
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("delegate controller %s: %w", c, err)
		}
	}
	return nil
}

// removeCgroups removes what a stopped lab left in the hierarchies.
func removeCgroups(lab string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for mount := range all {
		var dirs []string
		top := filepath.Join(mount, cgroupName(lab))
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		errs = append(errs, err)
		for _, dir := range slices.Backward(dirs) {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}
