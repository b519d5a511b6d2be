package conntrack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTune(t *testing.T) {
	for name, c := range map[string]struct{ file, have, want string }{
		"little room":                {"nf_conntrack_max", "65536", "262144"},
		"much room":                  {"nf_conntrack_max", "2000000", "2000000"},
		"the kernel's time":          {"nf_conntrack_tcp_timeout_established", "432000", "86400"},
		"a time that somebody chose": {"nf_conntrack_tcp_timeout_established", "300", "300"},
		"half-closed":                {"nf_conntrack_tcp_timeout_close_wait", "60", "3600"},
		"strict":                     {"nf_conntrack_tcp_be_liberal", "0", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			if err := os.WriteFile(path, []byte(c.have+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := tune(filepath.Dir(path), 8)
			if err == nil || strings.Contains(err.Error(), c.file) || strings.Count(err.Error(), "\n") != 2 {
				t.Errorf("want an error that names the three values that aren't there: %v", err)
			}
			if got, _ := os.ReadFile(path); strings.TrimSpace(string(got)) != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
