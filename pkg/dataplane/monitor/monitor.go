// Package monitor tells of changes to the nftables rulesets of a network namespace, whoever makes them: nft, iptables in its nf_tables
// variant, a CNI plugin, another proxy.
package monitor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Change is what one transaction did to one table.
type Change struct {
	Family dataplane.Family // 0 for families other than IPv4 and IPv6
	Table  string
	Chains []string // those that were added, removed, or whose rules were; without duplicates
	// PID and Program tell who did it, as the kernel sees it: PID is a thread's and of the first pid namespace, so that a program in a
	// container does not know its own by it. Program is the thread's name, at most 15 bytes.
	PID     uint32
	Program string
	Gone    bool // the table itself was removed
	// Lost: changes came faster than they were read, and some, to any table, were not. All other fields are zero.
	Lost bool
}

// Watch sends every change in the network namespace of the calling thread from when it returns until ctx ends, and then closes the channel.
// A reader that is slow loses changes, and is told so; it never holds up who makes them.
func Watch(ctx context.Context, log *slog.Logger) (<-chan Change, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("watching nftables: opening a netlink socket: %w", err)
	}
	// The kernel sends a message per element. Full loads of other proxies come at once; more than this is told as lost.
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		log.Warn("Watching nftables with a small buffer: bursts of changes may be noticed late.", "error", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watching nftables: joining the group of its changes (it needs the capability NET_ADMIN): %w", err)
	}
	out := make(chan Change)
	go func() {
		<-ctx.Done()
		conn.Close()
	}()
	go func() {
		defer close(out)
		receive(ctx, conn, out, log)
	}()
	return out, nil
}

// drained is how long nothing has to come for a socket's queue to be empty.
const drained = 20 * time.Millisecond

func receive(ctx context.Context, conn *netlink.Conn, out chan<- Change, log *slog.Logger) {
	send := func(c Change) bool {
		select {
		case out <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	var open transaction
	var lost bool
	var giveUp time.Time // where changes never stop coming, the queue was empty between two of them
	for {
		if lost {
			// From an overrun until its queue is empty a socket gets nothing, and is not told so again (NETLINK_S_CONGESTED). So the rest
			// is read before the loss is told, for what is looked at after that to be the latest.
			deadline := time.Now().Add(drained)
			if giveUp.Before(deadline) {
				deadline = giveUp
			}
			conn.SetReadDeadline(deadline)
		}
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, unix.ENOBUFS):
			if !lost {
				lost, giveUp = true, time.Now().Add(time.Second)
			}
			continue
		case lost && errors.Is(err, os.ErrDeadlineExceeded):
			lost, open = false, nil
			conn.SetReadDeadline(time.Time{})
			if !send(Change{Lost: true}) {
				return
			}
			continue
		case err != nil:
			// Nothing but an overrun is known to come here. Whoever reads checks on its rules now and then anyway.
			log.Error("Changes of nftables are not noticed any more; rules that somebody removes come back later than usual.", "error", err)
			<-ctx.Done()
			return
		}
		if lost {
			continue
		}
		for _, m := range messages {
			for _, c := range open.add(m) {
				if !send(c) {
					return
				}
			}
		}
	}
}

// transaction is the changes that were announced before the kernel tells who made them.
type transaction []Change

// add takes a message and returns the changes that it completes.
func (t *transaction) add(m netlink.Message) []Change {
	kind := uint16(m.Header.Type)
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return nil
	}
	kind &= 0xff
	attrs := m.Data[4:]
	if kind == unix.NFT_MSG_NEWGEN {
		done := *t
		*t = nil
		for i := range done {
			if pid := attribute(attrs, unix.NFTA_GEN_PROC_PID); len(pid) == 4 {
				done[i].PID = binary.BigEndian.Uint32(pid)
			}
			done[i].Program = text(attribute(attrs, unix.NFTA_GEN_PROC_NAME))
		}
		return done
	}
	// The table's name is an attribute of this number in every message, whatever it is about.
	c := t.change(family(m.Data[0]), text(attribute(attrs, unix.NFTA_TABLE_NAME)))
	switch kind {
	case unix.NFT_MSG_DELTABLE:
		c.Gone = true
	case unix.NFT_MSG_NEWTABLE:
		c.Gone = false // replaced in one transaction
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		c.note(text(attribute(attrs, unix.NFTA_CHAIN_NAME)))
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		c.note(text(attribute(attrs, unix.NFTA_RULE_CHAIN)))
	}
	return nil
}

// change returns the entry of a table.
func (t *transaction) change(f dataplane.Family, table string) *Change {
	for i := range *t {
		if (*t)[i].Family == f && (*t)[i].Table == table {
			return &(*t)[i]
		}
	}
	*t = append(*t, Change{Family: f, Table: table})
	return &(*t)[len(*t)-1]
}

// note adds a chain. Rules come chain by chain, so that a look at the last one finds nearly all duplicates.
func (c *Change) note(chain string) {
	if len(c.Chains) == 0 || c.Chains[len(c.Chains)-1] != chain {
		c.Chains = append(c.Chains, chain)
	}
}

// attribute returns the value of an attribute. It allocates nothing: a full load of ours is a message per element too.
func attribute(b []byte, want uint16) []byte {
	for len(b) >= unix.NLA_HDRLEN {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if n < unix.NLA_HDRLEN || n > len(b) {
			return nil
		}
		if kind == want {
			return b[unix.NLA_HDRLEN:n]
		}
		b = b[min((n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil
}

func text(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}

func family(nfproto byte) dataplane.Family {
	switch nfproto {
	case unix.NFPROTO_IPV4:
		return dataplane.IPv4
	case unix.NFPROTO_IPV6:
		return dataplane.IPv6
	}
	return 0
}
