package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/btree"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sharing is what decides whether Services may have one address together: their keys and their backends are equal, and no port of one is
// a port of another. Between namespaces the address's pool must allow it too.
type Sharing struct {
	// Key is what the Services agreed on; empty for a Service that shares nothing.
	Key string
	// Backend is empty if every node may serve the Service, else (externalTrafficPolicy Local) what tells its pods from others.
	Backend string
	Ports   []Port
}

// Port is a port that a Service serves.
type Port struct {
	Protocol corev1.Protocol
	Number   int32
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
}

func (s Sharing) equal(t Sharing) bool {
	return s.Key == t.Key && s.Backend == t.Backend && slices.Equal(s.Ports, t.Ports)
}

// agrees tells whether the two have the same key and backend.
func (s Sharing) agrees(t Sharing) bool {
	return s.Key != "" && s.Key == t.Key && s.Backend == t.Backend
}

// common returns a port that both serve.
func (s Sharing) common(t Sharing) (Port, bool) {
	for _, p := range s.Ports {
		if slices.Contains(t.Ports, p) {
			return p, true
		}
	}
	return Port{}, false
}

// obstacle is why a Service can't have an address that others have.
type obstacle struct {
	reason     Reason
	fact, mend string
}

// obstacle returns nil if nobody else has the address, or if the Service may share it with them. A Service that is about to give the
// address back is in the way of newcomers, not of those that share with it.
func (a *Allocator) obstacle(r *Request, addr netip.Addr) *obstacle {
	newcomer := !slices.Contains(a.holders[addr], r.Service)
	for _, other := range a.holders[addr] {
		if other == r.Service {
			continue
		}
		h := a.services[other]
		leaving := slices.Contains(h.leaving, addr)
		if leaving && newcomer {
			return &obstacle{AddressTaken, fmt.Sprintf("which Service %s is about to give back", other), "nothing has to be done"}
		}
		if leaving {
			continue
		}
		if why := a.misfit(r, addr, other, h.sharing); why != nil {
			return why
		}
	}
	return nil
}

// misfit tells why a Service can't share the address with another one, nil if it can.
func (a *Allocator) misfit(r *Request, addr netip.Addr, other types.NamespacedName, theirs Sharing) *obstacle {
	ours := r.Sharing
	fact := fmt.Sprintf("which Service %s has", other)
	if ours.Key == "" || ours.Key != theirs.Key {
		return &obstacle{AddressTaken, fact,
			"ask for another address, delete that Service, or give both the same key in annotation steelyard.io/allow-shared-ip"}
	}
	fact += ", with the same key for sharing, but "
	if ours.Backend != theirs.Backend {
		return &obstacle{CannotShare, fact + "with other pods",
			"set spec.externalTrafficPolicy of both to Cluster, or give both the same spec.selector in one namespace"}
	}
	if port, ok := ours.common(theirs); ok {
		return &obstacle{CannotShare, fact + fmt.Sprintf("both serve %s port %d", port.Protocol, port.Number),
			"change the port of one of the two, or ask for another address"}
	}
	p := a.poolOf(addr)
	if other.Namespace == r.Service.Namespace || p != nil && p.ShareAcrossNamespaces {
		return nil
	}
	mend := "ask for another address"
	if p != nil {
		mend += fmt.Sprintf(", or set spec.shareAcrossNamespaces of pool %s to true", p.Name)
	}
	return &obstacle{CannotShare, fact + "in another namespace", mend}
}

// sharedList is the addresses of a pool that a Service with a key may join. Those whose users look the same from without stand
// together, so that a search costs the number of different looks and not of addresses.
type sharedList struct {
	byKey map[string]map[string]*lookalikes
	of    map[netip.Addr]*lookalikes
	nodes *btree.FreeListG[netip.Addr]
}

// lookalikes are addresses that all have the same ports in use, of the same backend and by the same namespaces.
type lookalikes struct {
	Sharing
	look       string
	namespaces []string
	addrs      *btree.BTreeG[netip.Addr]
}

func newSharedList() sharedList {
	return sharedList{map[string]map[string]*lookalikes{}, map[netip.Addr]*lookalikes{}, btree.NewFreeListG[netip.Addr](btree.DefaultFreeListSize)}
}

func (l *sharedList) remove(addr netip.Addr) {
	group := l.of[addr]
	if group == nil {
		return
	}
	delete(l.of, addr)
	group.addrs.Delete(addr)
	if group.addrs.Len() == 0 {
		delete(l.byKey[group.Key], group.look)
		if len(l.byKey[group.Key]) == 0 {
			delete(l.byKey, group.Key)
		}
	}
}

func (l *sharedList) add(addr netip.Addr, all Sharing, namespaces []string) {
	look := lookOf(all, namespaces)
	group := l.byKey[all.Key][look]
	if group == nil {
		group = &lookalikes{all, look, namespaces, btree.NewWithFreeListG(8, netip.Addr.Less, l.nodes)}
		if l.byKey[all.Key] == nil {
			l.byKey[all.Key] = map[string]*lookalikes{}
		}
		l.byKey[all.Key][look] = group
	}
	group.addrs.ReplaceOrInsert(addr)
	l.of[addr] = group
}

// lookOf is the same for equal arguments only: neither names nor selectors have tabs in them.
func lookOf(all Sharing, namespaces []string) string {
	look := append(make([]byte, 0, 128), all.Backend...)
	for _, p := range all.Ports {
		look = append(append(look, '\t'), p.Protocol...)
		look = strconv.AppendInt(look, int64(p.Number), 10)
	}
	for _, n := range namespaces {
		look = append(append(look, '\t'), n...)
	}
	return string(look)
}

// offer enters an address anew among those that can be shared, after something has changed about its users.
func (a *Allocator) offer(addr netip.Addr) {
	p := a.poolOf(addr)
	if p == nil {
		return
	}
	p.shared.remove(addr)
	users := a.holders[addr]
	if len(users) == 0 || a.services[users[0]].sharing.Key == "" || !p.gives(addr) {
		return
	}
	all := Sharing{Ports: make([]Port, 0, 2*len(users))}
	namespaces := make([]string, 0, 1)
	for _, user := range users { // by namespace
		h := a.services[user]
		if h.sharing.Key == "" || slices.Contains(h.leaving, addr) {
			return
		}
		all.Key, all.Backend = h.sharing.Key, h.sharing.Backend
		all.Ports = append(all.Ports, h.sharing.Ports...)
		if !slices.Contains(namespaces, user.Namespace) {
			namespaces = append(namespaces, user.Namespace)
		}
	}
	slices.SortFunc(all.Ports, comparePorts)
	p.shared.add(addr, all, namespaces)
}

// lowestShared returns the lowest address of a pool that the Service can share by its key.
func (a *Allocator) lowestShared(r *Request, p *pool, family Family) (lowest netip.Addr, ok bool) {
	for _, group := range p.shared.byKey[r.Sharing.Key] {
		ours := slices.Contains(group.namespaces, r.Service.Namespace)
		alone := ours && len(group.namespaces) == 1
		if _, clash := group.common(r.Sharing); clash || !group.agrees(r.Sharing) || !alone && !p.ShareAcrossNamespaces ||
			!ours && !a.withinQuota(r, p, family) {
			continue
		}
		group.addrs.AscendGreaterOrEqual(first(family), func(addr netip.Addr) bool {
			if FamilyOf(addr) == family && (!ok || addr.Less(lowest)) {
				lowest, ok = addr, true
			}
			return false
		})
	}
	return lowest, ok
}

// essence is what matters of a Service's sharing: nothing when it has no key.
func (s Sharing) essence() Sharing {
	if s.Key == "" {
		return Sharing{}
	}
	s.Ports = slices.Clone(s.Ports)
	slices.SortFunc(s.Ports, comparePorts)
	return s
}
