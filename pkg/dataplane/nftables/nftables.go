// Package nftables keeps the dataplane's rules in the kernel as nftables tables "ip steelyard" and "ip6 steelyard".
//
// A Service is elements of a fixed number of maps, never a chain or a set: the kernel's cost of changing a ruleset grows with those. Address,
// protocol and port give a chain, which says whether to masquerade and from how many endpoints to pick; Services with as many endpoints
// share it. Together with a random number they give the endpoint.
//
// The verdicts in maps are the dearest thing here: at each commit that adds one, the kernel follows all that a base chain reaches
// (nft_chain_validate), 0.1 us each. So there is one per address and none per endpoint, and the chains that they go to are short.
//
// It needs Linux 5.15, and was run on 6.18 only. What it relies on was not tried on older kernels: deletion from a packet's path
// (NFT_DYNSET_OP_DELETE, 5.4) wants the value of a map's element too; a lookup finds a set by its name before its id; sets of concatenated
// intervals (5.6) compare with the elements of the next generation only, so that a range may take the place of one that overlaps it in one
// transaction; and a chain whose last reference from a map just went is busy until 6.2.
package nftables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

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
	conn     *nft.Conn // one for good: closing a socket waits until the kernel has freed what was deleted
	tables   []*table  // what is in the kernel; nil when that is not known
}

// New returns a Backend for the network namespace of the calling thread. The error names the kernel feature or the permission that is
// missing.
func New(c Config) (*Backend, error) {
	conn, err := nft.New(nft.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("nftables cannot carry Services on this node: no netlink socket to the kernel's nf_tables: %w; "+
			"--dataplane-backend=iptables is the way out", err)
	}
	b := &Backend{mode: c.Mode, log: c.Log, conn: conn}
	for _, f := range []family{ipv4, ipv6} {
		err := probe(conn, f, c.Mode)
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
		if !reflect.DeepEqual(t.host, m.Host) && t.version != t.skeleton(b.mode, m.Host)[0].name {
			changed = nil
		}
	}
	if changed == nil || b.tables == nil {
		return b.syncAll(m)
	}
	for _, t := range b.tables {
		t.queue(b.conn, t.update(m, changed))
	}
	if err := b.conn.Flush(); err != nil {
		b.tables = nil
		return fmt.Errorf("nftables: applying changes of %d Services: %w", len(changed), err)
	}
	return nil
}

// syncAll compares the kernel with the model. A table of another version is replaced in the transaction that makes the new one.
func (b *Backend) syncAll(m *dataplane.Model) error {
	b.tables = nil
	var plans []plan
	for _, f := range b.families {
		p, err := b.compare(f, m)
		if err != nil {
			return fmt.Errorf("nftables: reading table %s: %w", p.table, err)
		}
		plans = append(plans, p)
	}
	for _, p := range plans {
		if p.old == nil {
			p.table.create(b.conn)
		}
		p.table.queue(b.conn, p.change)
	}
	if err := b.conn.Flush(); err != nil {
		return fmt.Errorf("nftables: applying all %d Services: %w", len(m.Ports), err)
	}
	for _, p := range plans {
		if p.old != nil {
			if err := p.table.drop(b.conn, p.old); err != nil {
				b.log.Info("Some unused chains stay until the next start; they do no harm.", "table", p.table.String(), "error", err)
			}
		}
		b.tables = append(b.tables, p.table)
	}
	return nil
}

// plan is what to do about a table.
type plan struct {
	table  *table
	change *change
	old    *readBack // nil: it is made anew
}

func (b *Backend) compare(f family, m *dataplane.Model) (plan, error) {
	t := newTable(f, b.mode, m.Host)
	k, err := t.read(b.conn)
	if err != nil {
		return plan{table: t}, err
	}
	if k != nil {
		ch := t.adopt(m, k)
		what := t.intact(b.conn, t.kept(k))
		if what == nil {
			return plan{t, ch, k}, nil
		}
		b.log.Warn("The rules are made anew: somebody changed them.", "table", t.String(), "what", what)
		t = newTable(f, b.mode, m.Host)
	}
	return plan{t, t.adopt(m, &readBack{}), nil}, nil
}

// Intact implements dataplane.Backend. It looks at every chain, not at the elements of the maps.
func (b *Backend) Intact(context.Context) error {
	if b.tables == nil {
		return errors.New("nftables: the tables were not made yet, or the last change of them failed")
	}
	for _, t := range b.tables {
		if have, err := t.exists(b.conn); err != nil {
			return fmt.Errorf("nftables: %w", err)
		} else if !have {
			return fmt.Errorf("nftables: table %s is gone", t)
		}
		if err := t.intact(b.conn, t.usedChains()); err != nil {
			return fmt.Errorf("nftables: table %s: %w", t, err)
		}
	}
	return nil
}

// Remove implements dataplane.Backend.
func (b *Backend) Remove(context.Context) error {
	b.tables = nil
	for _, f := range b.families {
		t := newTable(f, b.mode, dataplane.Host{})
		have, err := t.exists(b.conn)
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		if have {
			b.conn.DelTable(t.nft)
		}
	}
	if err := b.conn.Flush(); err != nil {
		return fmt.Errorf("nftables: removing the tables: %w", err)
	}
	return nil
}
