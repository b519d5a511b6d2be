package nftables

import (
	"bytes"
	"fmt"
	"slices"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// readBack is what the kernel has in a table.
type readBack struct {
	elements elements
	chains   []string
	lastID   uint32
}

// read reads a table back. It returns nil if the table is not there, or is not of this version, or lacks something.
func (t *table) read(conn *nft.Conn) (*readBack, error) {
	have, err := t.exists(conn)
	if err != nil || !have {
		return nil, err
	}
	k := &readBack{elements: elements{}}
	all, err := conn.ListChainsOfTableFamily(t.nft.Family)
	if err != nil {
		return nil, fmt.Errorf("listing the chains: %w", err)
	}
	for _, c := range all {
		if c.Table.Name == tableName {
			k.chains = append(k.chains, c.Name)
		}
	}
	if t.intact(conn, t.skeleton(t.mode, t.host)) != nil {
		return nil, nil
	}
	for name, set := range t.setOf {
		if name == setClients {
			continue
		}
		// The library's set may be of an earlier transaction; the kernel finds it by its name.
		found, err := conn.GetSetElements(set)
		if err != nil {
			return nil, nil
		}
		for _, e := range found {
			c := content{comment: e.Comment}
			switch {
			case set.DataType == nft.TypeVerdict:
				c.chain = verdictChain(e.Val)
			case set.IsMap:
				c.value = string(e.Val)
			}
			if name == setIDs || name == setNodePortIDs {
				k.lastID = max(k.lastID, idIn(c.value))
			}
			k.elements[slot{set: name, key: string(e.Key), end: string(e.KeyEnd)}] = c
		}
	}
	return k, nil
}

func (t *table) exists(conn *nft.Conn) (bool, error) {
	tables, err := conn.ListTablesOfFamily(t.nft.Family)
	if err != nil {
		return false, fmt.Errorf("listing the tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(o *nft.Table) bool { return o.Name == tableName }), nil
}

// verdictChain returns the chain of a verdict as the kernel encodes it.
func verdictChain(value []byte) string {
	ad, err := netlink.NewAttributeDecoder(value)
	if err != nil {
		return ""
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_VERDICT_CHAIN {
			return ad.String()
		}
	}
	return ""
}

// intact returns what is wrong with the chains.
func (t *table) intact(conn *nft.Conn, chains []chain) error {
	for _, c := range chains {
		found, err := conn.ListChain(t.nft, c.name)
		if err != nil {
			return fmt.Errorf("chain %s is gone or cannot be read: %w", c.name, err)
		}
		if c.hook != nil && (found.Hooknum == nil || *found.Hooknum != *c.hook.num || *found.Priority != c.hook.priority) {
			return fmt.Errorf("chain %s has left its hook", c.name)
		}
		rules, err := conn.GetRules(t.nft, &nft.Chain{Name: c.name})
		if err != nil {
			return fmt.Errorf("chain %s: reading its rules: %w", c.name, err)
		}
		if !slices.EqualFunc(rules, c.rules, func(r *nft.Rule, want rule) bool { return bytes.Equal(r.UserData, want.userData()) }) {
			return fmt.Errorf("chain %s was changed: it has %d rules, not the %d of its own", c.name, len(rules), len(c.rules))
		}
	}
	return nil
}

// kept returns the chains in use that were there.
func (t *table) kept(k *readBack) []chain {
	return slices.DeleteFunc(t.usedChains(), func(c chain) bool { return !slices.Contains(k.chains, c.name) })
}

// drop removes chains that nothing needs any more. That is a transaction of its own: before Linux 6.2 a chain counts as used (EBUSY) until
// the map elements that went before it have been freed, which happens some time after their transaction.
func (t *table) drop(conn *nft.Conn, k *readBack) error {
	keep := map[string]bool{}
	for _, c := range t.usedChains() {
		keep[c.name] = true
	}
	gone := slices.DeleteFunc(slices.Clone(k.chains), func(name string) bool { return keep[name] })
	for _, name := range gone {
		conn.FlushChain(&nft.Chain{Table: t.nft, Name: name})
	}
	for _, name := range gone {
		conn.DelChain(&nft.Chain{Table: t.nft, Name: name})
		delete(t.chains, name)
	}
	return conn.Flush()
}
