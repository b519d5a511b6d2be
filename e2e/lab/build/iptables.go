package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// iptablesFiles are Debian's iptables, both variants, with the libraries and extensions that they load: what the
// speaker's image holds beside the speaker. They come from this machine's own package.
func iptablesFiles() ([]tarEntry, error) {
	programs := []string{"/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi"}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/lib*.so")
	if err != nil || len(extensions) == 0 {
		return nil, fmt.Errorf("no iptables extensions in /usr/lib/*/xtables: %w", err)
	}
	files := append(programs, extensions...)
	out, err := exec.Command("ldd", files...).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: install the Debian package iptables", programs[0], err)
	}
	for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllSubmatch(out, -1) {
		files = append(files, string(m[1]))
	}
	slices.Sort(files)
	var entries []tarEntry
	for _, f := range slices.Compact(files) {
		content, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		entries = append(entries, tarEntry{name: f[1:], content: content})
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, command := range []string{"", "-restore", "-save"} {
			entries = append(entries,
				tarEntry{name: "usr/sbin/" + family + command, target: "xtables-nft-multi"},
				tarEntry{name: "usr/sbin/" + family + "-nft" + command, target: "xtables-nft-multi"},
				tarEntry{name: "usr/sbin/" + family + "-legacy" + command, target: "xtables-legacy-multi"})
		}
	}
	return entries, nil
}
