// Package nftables keeps the dataplane's rules in the kernel as nftables tables "ip steelyard" and "ip6 steelyard".
//
// A Service is elements of a fixed number of maps, never a chain or a set: the kernel's cost of changing a ruleset grows with those. A
// lookup of address, protocol and port gives the class of the connection, and the class a chain, which says whether to masquerade and from
// how many endpoints to pick; Services with as many endpoints share it. A second lookup gives the id of the Service's port, under which its
// endpoints, and the clients that stick to them, are stored once for all its addresses.
//
// Only classes are verdicts: at each commit the kernel follows every verdict in a map that a base chain reaches (nft_chain_validate).
//
// It needs Linux 5.15. What was checked by reading its sources rather than by running it: deletion from a packet's path
// (NFT_DYNSET_OP_DELETE, 5.4) wants the value of a map's element too; a lookup finds a set by its name before its id; sets of concatenated
// intervals (5.6) compare with the elements of the next generation only, so that a range may take the place of one that overlaps it in one
// transaction; and a chain whose last reference from a map just went is busy until 6.2.
package nftables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	nft "github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

const tableName = "steelyard"

// Config configures a Backend.
type Config struct {
	Mode dataplane.Mode
	Log  *slog.Logger
}

// Backend is a dataplane.Backend.
type Backend struct {
	mode     dataplane.Mode
	log      *slog.Logger
	families []family
	tables   []*table // what is in the kernel; nil when that is not known
}

// New returns a Backend for the network namespace of the calling thread. The error names the kernel feature or the permission that is
// missing.
func New(c Config) (*Backend, error) {
	b := &Backend{mode: c.Mode, log: c.Log}
	for _, f := range []family{ipv4, ipv6} {
		err := probe(f, c.Mode)
		switch {
		case err == nil:
			b.families = append(b.families, f)
		case f.Family == dataplane.IPv6 && !errors.Is(err, unix.EPERM):
			c.Log.Warn("This node's kernel cannot carry IPv6 Services with nftables: they get no rules here. Load the module that is named, "+
				"or choose --dataplane-backend=iptables.", "error", err)
		default:
			return nil, fmt.Errorf("nftables cannot carry Services on this node: %w; --dataplane-backend=iptables is the way out", err)
		}
	}
	return b, nil
}

// Sync implements dataplane.Backend.
func (b *Backend) Sync(_ context.Context, m *dataplane.Model, changed []string) error {
	for _, t := range b.tables {
		if t.version != t.skeleton(b.mode, m.Host)[0].name {
			changed = nil
		}
	}
	if changed == nil || b.tables == nil {
		return b.syncAll(m)
	}
	conn := &nft.Conn{}
	for _, t := range b.tables {
		if err := t.queue(conn, t.update(m, changed)); err != nil {
			b.tables = nil
			return fmt.Errorf("nftables: %w", err)
		}
	}
	if err := conn.Flush(); err != nil {
		b.tables = nil
		return fmt.Errorf("nftables: applying changes of %d Services: %w", len(changed), err)
	}
	return nil
}

// syncAll compares the kernel with the model. A table of another version is replaced in the transaction that makes the new one.
func (b *Backend) syncAll(m *dataplane.Model) error {
	b.tables = nil
	conn := &nft.Conn{}
	var tables []*table
	var clean []func() error
	for _, f := range b.families {
		t := newTable(f, b.mode, m.Host)
		k, err := t.read(conn)
		if err != nil {
			return fmt.Errorf("nftables: reading table %s: %w", t, err)
		}
		var ch *change
		if k != nil {
			ch = t.adopt(m, k)
			if err := t.intact(conn, t.kept(k)); err != nil {
				b.log.Warn("The rules are made anew: somebody changed them.", "table", t.String(), "what", err)
				k, t = nil, newTable(f, b.mode, m.Host)
			} else {
				clean = append(clean, func() error { return t.drop(conn, k) })
			}
		}
		if k == nil {
			conn.AddTable(t.nft) // deleting a table that does not exist is an error
			conn.DelTable(t.nft)
			if err := t.create(conn); err != nil {
				return fmt.Errorf("nftables: table %s: %w", t, err)
			}
			ch = t.adopt(m, &readBack{})
		}
		if err := t.queue(conn, ch); err != nil {
			return fmt.Errorf("nftables: table %s: %w", t, err)
		}
		tables = append(tables, t)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: applying all %d Services: %w", len(m.Ports), err)
	}
	for _, drop := range clean {
		if err := drop(); err != nil {
			b.log.Info("Some unused chains stay until the next start; they do no harm.", "error", err)
		}
	}
	b.tables = tables
	return nil
}

// Intact implements dataplane.Backend. It looks at every chain, not at the elements of the maps.
func (b *Backend) Intact(context.Context) error {
	conn := &nft.Conn{}
	for _, t := range b.tables {
		if have, err := t.exists(conn); err != nil {
			return fmt.Errorf("nftables: %w", err)
		} else if !have {
			return fmt.Errorf("nftables: table %s is gone", t)
		}
		if err := t.intact(conn, t.usedChains()); err != nil {
			return fmt.Errorf("nftables: table %s: %w", t, err)
		}
	}
	return nil
}

// Remove implements dataplane.Backend.
func (b *Backend) Remove(context.Context) error {
	b.tables = nil
	conn := &nft.Conn{}
	for _, f := range b.families {
		t := newTable(f, b.mode, dataplane.Host{})
		have, err := t.exists(conn)
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		if have {
			conn.DelTable(t.nft)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: removing the tables: %w", err)
	}
	return nil
}
