package nftables

import (
	"errors"
	"fmt"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// probe makes and removes, in one transaction, a table with everything that rules use. When that fails, the same is done feature by
// feature to find the one that is missing.
func probe(conn *nft.Conn, f family, mode dataplane.Mode) error {
	host := dataplane.Host{PodInterfaces: "x"}
	err := try(conn, f, mode, host, func(t *table) {
		t.create(conn)
		t.addChains(conn, f.chainsOf(class{external: true, local: true, cluster: 2, node: 1, affinity: time.Second}, mode, host))
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("no permission to change %s rules: the container needs the capability NET_ADMIN: %w", f, err)
	}
	for _, feature := range f.features() {
		probe := []chain{{name: "probe", hook: feature.hook, rules: []rule{{exprs: feature.exprs}}}}
		if try(conn, f, mode, host, func(t *table) { t.addChains(conn, probe) }) != nil {
			return fmt.Errorf("the kernel lacks %s for %s (module %s): %w", feature.name, f, feature.module, err)
		}
	}
	return fmt.Errorf("the kernel does not take the rules for %s; it has to be Linux 5.15 or later: %w", f, err)
}

func try(conn *nft.Conn, f family, mode dataplane.Mode, host dataplane.Host, fill func(*table)) error {
	t := newTable(f, mode, host)
	t.nft.Name = tableName + "-probe"
	conn.AddTable(t.nft)
	fill(t)
	conn.DelTable(t.nft)
	return conn.Flush()
}

type feature struct {
	name, module string
	hook         *hook
	exprs        exprs
}

func (f family) features() []feature {
	at := func(kind nft.ChainType, num *nft.ChainHook) *hook { return &hook{kind, num, priorityServices} }
	prerouting, input := nft.ChainHookPrerouting, nft.ChainHookInput
	return []feature{
		{"nf_tables", "nf_tables", nil, verdict(expr.VerdictReturn)},
		{"filter chains", "nf_tables", at(nft.ChainTypeFilter, input), nil},
		{"translation of destinations", "nft_chain_nat, nft_nat", at(nft.ChainTypeNAT, prerouting),
			join(exprs{&expr.Immediate{Register: reg(endpointReg), Data: make([]byte, f.addrLen())},
				&expr.Immediate{Register: reg(endpointReg + f.addrRegs), Data: make([]byte, 4)}}, f.translate())},
		{"masquerading", "nft_masq", &hook{nft.ChainTypeNAT, nft.ChainHookPostrouting, priorityMasq}, masquerade()},
		{"connection tracking", "nft_ct", nil, ctNew()},
		{"address types", "nft_fib_" + map[dataplane.Family]string{dataplane.IPv4: "ipv4", dataplane.IPv6: "ipv6"}[f.Family], nil, local(false)},
		{"random numbers", "nft_numgen", nil, random(keyReg, 2)},
		{"rejection", "nft_reject", at(nft.ChainTypeFilter, input), f.unreachable()},
	}
}

func (f family) String() string {
	if f.Family == dataplane.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}
