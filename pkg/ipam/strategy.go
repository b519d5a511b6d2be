package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// rememberedMost is how many released addresses a pool remembers. The status of the pool has to hold them, and what a restart
// forgets must not matter before either, so an older one counts as never used.
const rememberedMost = 64

func (p *pool) remembers() bool { return p.Strategy == v1beta1.StrategyLeastRecentlyUsed }

// next returns the free address of a family that goes first by the pool's strategy.
func (p *pool) next(service types.NamespacedName, family Family) (netip.Addr, bool) {
	if p.Strategy == v1beta1.StrategyRandom {
		if from, ok := p.point(service, family); ok {
			if a, ok := p.lowest(from); ok {
				return a, true
			}
		}
	}
	if a, ok := p.lowest(first(family)); ok {
		return a, true
	}
	for _, a := range p.released {
		if FamilyOf(a) == family {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// lowest returns the lowest free address that is not below from and of its family.
func (p *pool) lowest(from netip.Addr) (netip.Addr, bool) {
	for {
		a, ok := p.free.next(from)
		if !ok || p.gives(a) {
			return a, ok
		}
		// It will never be given out; without it the next search is shorter.
		p.free.remove(a)
	}
}

// point returns the place in the pool's ranges that the Service's name stands for.
func (p *pool) point(service types.NamespacedName, family Family) (netip.Addr, bool) {
	var total int64
	for _, r := range p.Ranges {
		if FamilyOf(r.From) == family {
			total = addSaturated(total, size(r))
		}
	}
	if total == 0 {
		return netip.Addr{}, false
	}
	hash := sha256.Sum256([]byte(service.String() + "/" + string(family)))
	offset := int64(binary.BigEndian.Uint64(hash[:]) % uint64(total))
	for _, r := range p.Ranges {
		if FamilyOf(r.From) != family {
			continue
		}
		if n := size(r); offset >= n {
			offset -= n
			continue
		}
		return plus(r.From, uint64(offset)), true
	}
	return netip.Addr{}, false
}

// remember takes the addresses for released ones, as far as the pool could give them now.
func (p *pool) remember(released []netip.Addr) {
	for _, a := range p.released {
		p.free.add(a)
	}
	p.released = nil
	if !p.remembers() {
		return
	}
	for _, a := range released[max(0, len(released)-rememberedMost):] {
		if p.gives(a) && p.free.remove(a) {
			p.released = append(p.released, a)
		}
	}
}

// release makes an address free again.
func (p *pool) release(a netip.Addr) {
	if !p.remembers() || !p.gives(a) {
		p.free.add(a)
		return
	}
	p.released = append(p.released, a)
	if len(p.released) > rememberedMost {
		p.free.add(p.released[0])
		p.released = slices.Delete(p.released, 0, 1)
	}
}

// occupy makes an address no longer free.
func (p *pool) occupy(a netip.Addr) {
	if p.free.remove(a) {
		return
	}
	if i := slices.Index(p.released, a); i >= 0 {
		p.released = slices.Delete(p.released, i, i+1)
	}
}
