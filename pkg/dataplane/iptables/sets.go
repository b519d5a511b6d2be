package iptables

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Session affinity is kept in IP sets, one for each endpoint, of the clients that are bound to it: kube-proxy's xt_recent remembers only
// 100 clients in a list (its parameter ip_list_tot, which can be set only when the module is loaded) and forgets the oldest when another
// one comes. Hashing the clients instead would bind them for ever, and not for the time that the Service asks for. A new
// connection binds its client anew, so that another time holds for a client from its next connection on.

// setPrefix begins the names of all sets.
const setPrefix = "STLY-SEP-"

// maxClients is how many clients a set holds; those beyond are not bound. An entry takes some 100 bytes, and none is reserved.
const maxClients = 1 << 20

// makeSet makes a set if it does not exist.
func makeSet(name string, family dataplane.Family) error {
	// The rules that add clients say for how long; this only makes the set one whose entries expire.
	var timeout uint32 = 10800
	options := netlink.IpsetCreateOptions{Replace: true, Timeout: &timeout, MaxElements: maxClients, Family: unix.AF_INET}
	if family == dataplane.IPv6 {
		options.Family = unix.AF_INET6
	}
	if err := netlink.IpsetCreate(name, "hash:ip", options); err != nil {
		return fmt.Errorf("making IP set %s for session affinity: %w", name, err)
	}
	return nil
}

// retireSets empties and deletes sets, and returns those that the kernel is not yet done with: nf_tables frees the rules that refer to a
// set some time after the transaction. Those are empty at least.
func retireSets(names []string) (busy []string, err error) {
	for _, name := range names {
		if err := netlink.IpsetFlush(name); err != nil && !missing(err) {
			return nil, fmt.Errorf("emptying IP set %s: %w", name, err)
		}
		switch err := netlink.IpsetDestroy(name); {
		case errors.Is(err, nl.IPSetError(nl.IPSET_ERR_BUSY)):
			busy = append(busy, name)
		case err != nil && !missing(err):
			return nil, fmt.Errorf("deleting IP set %s: %w", name, err)
		}
	}
	return busy, nil
}

func missing(err error) bool { return errors.Is(err, unix.ENOENT) }

// listSets returns the names of the sets that are Steelyard's.
func listSets() ([]string, error) {
	all, err := netlink.IpsetListAll()
	if err != nil {
		return nil, fmt.Errorf("listing IP sets: %w", err)
	}
	var names []string
	for _, set := range all {
		if strings.HasPrefix(set.SetName, setPrefix) {
			names = append(names, set.SetName)
		}
	}
	return names, nil
}

// removeSets deletes all sets that are Steelyard's, and waits until the kernel lets go of them.
func removeSets(ctx context.Context) error {
	names, err := listSets()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // the kernel does not tell
	defer tick.Stop()
	for {
		if names, err = retireSets(names); err != nil || len(names) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("IP sets %s are still in use: look for rules that refer to them with iptables-save", strings.Join(names, ", "))
		case <-tick.C:
		}
	}
}
