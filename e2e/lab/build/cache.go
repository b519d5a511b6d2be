// Package build makes the programs and container images that the lab runs, and keeps them in a cache outside the checkout.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CacheDir is where builds and running labs are kept: $STEELYARD_CACHE, or steelyard in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("STEELYARD_CACHE"); dir != "" {
		return dir, nil
	}
	home, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder (set STEELYARD_CACHE or HOME): %w", err)
	}
	return filepath.Join(home, "steelyard"), nil
}

// ModuleRoot is the folder of the checkout that the caller runs in.
func ModuleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("not inside the checkout: run this from the folder of Steelyard's go.mod")
	}
	return filepath.Dir(mod), nil
}

// dirs returns the folders of CacheDir and ModuleRoot.
func dirs() (cache, root string, err error) {
	if cache, err = CacheDir(); err == nil {
		root, err = ModuleRoot()
	}
	return cache, root, err
}

// locked runs f while no other process does so for the same folder, so that two labs that start together build once.
func locked(dir string, f func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return f()
}

func fingerprint(files ...string) (string, error) {
	sum := sha256.New()
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		sum.Write(content)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func goBuild(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
