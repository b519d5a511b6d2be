// Package backend opens the dataplane's backends by their names.
package backend

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/iptables"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/nftables"
)

// Names are those of the kernel's rule languages that there is a backend for, the default first.
var Names = []string{"nftables", "iptables"}

// Open returns the backend of that name. sysctls is where the kernel's settings can be written; empty for /proc/sys. The error says what the
// node lacks.
func Open(name string, mode dataplane.Mode, sysctls string, log *slog.Logger) (dataplane.Backend, error) {
	switch name {
	case "nftables":
		return nftables.New(nftables.Config{Mode: mode, Log: log})
	case "iptables":
		return iptables.New(iptables.Config{Mode: mode, Log: log, Sysctls: sysctls})
	}
	return nil, fmt.Errorf("there is no dataplane backend %q: use one of %s", name, strings.Join(Names, ", "))
}
