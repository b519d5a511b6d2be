package conntrack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Tune sets what a node without kube-proxy lacks, with kube-proxy's values: room for as many flows as the machine can have, half-closed and
// idle connections that are forgotten in time, and out-of-window packets taken as part of their connection (as INVALID they would leave
// the node untranslated, and the client would answer them with a reset). What somebody has set already stays. The error names what could
// not be set; the rest is set. sysctls is where the settings are, as /proc/sys, which containers can't write to.
func Tune(sysctls string) error {
	return tune(filepath.Join(sysctls, "net/netfilter"), runtime.NumCPU())
}

func tune(dir string, cpus int) error {
	room := min(max(131072, 32768*cpus), 1048576)
	var errs []error
	for _, s := range []struct {
		name   string
		value  int
		change func(have int) bool
	}{
		{"nf_conntrack_max", room, func(have int) bool { return have < room }},
		{"nf_conntrack_tcp_timeout_established", 86400, func(have int) bool { return have == 432000 }}, // the kernel's default
		{"nf_conntrack_tcp_timeout_close_wait", 3600, func(have int) bool { return have == 60 }},       // likewise
		{"nf_conntrack_tcp_be_liberal", 1, func(have int) bool { return have == 0 }},
	} {
		path := filepath.Join(dir, s.name)
		text, err := os.ReadFile(path)
		if err == nil {
			var have int
			if have, err = strconv.Atoi(strings.TrimSpace(string(text))); err == nil && s.change(have) {
				err = os.WriteFile(path, []byte(strconv.Itoa(s.value)), 0o644)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set net.netfilter.%s=%d: %w", s.name, s.value, err))
		}
	}
	return errors.Join(errs...)
}
