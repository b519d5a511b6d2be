package nftables

import (
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Clients stick to an endpoint per port of a Service, whichever of its addresses they use (sessionAffinity: ClientIP). So a lookup of the
// address gives an id first, and everything else is stored under that.
const (
	setIDs          = "ids"           // address . protocol . port -> 0 . id
	setNodePortIDs  = "node-port-ids" // protocol . port -> 0 . id
	setChoices      = "choices"       // id . index -> 0 . endpoint
	setLocalChoices = "local-choices" // the same for traffic that stays on this node
	setMembers      = "members"       // endpoint . id: what a client may stick to
	setLocalMembers = "local-members" // the same for traffic that stays on this node
	setClients      = "clients"       // id . client -> 0 . endpoint, written by the rules
)

// maxClients bounds the clients that are remembered. Without a size the kernel stops at 65535; one beyond the bound gets any endpoint.
const maxClients = 1 << 19

// dynsetDelete is NFT_DYNSET_OP_DELETE (Linux 5.4), which the unix package lacks.
const dynsetDelete = 2

// pickSticky chooses the endpoint that the client had, or else one of n.
//
// nft 1.0.6 aborts when it lists a rule in which a value from a map is part of another key: it does not know how long that is. But it
// remembers a value only for the register that it starts in. So values that are used again have a word of padding in front, and the
// registers after that are loaded before the lookup with something else, which nft then shows: "meta mark" for the id, "ip daddr . th
// dport" for the endpoint.
func (f family) pickSticky(n int, affinity time.Duration, choices, members string) []rule {
	id, after := f.idReg(), f.idReg()+1
	client := f.load(f.saddr, after)
	// The endpoint's padding is in the register before it, which the mark then takes, in nft's memory too.
	endpoint := func(set string) exprs {
		return join(f.load(f.daddr, endpointReg), dport(endpointReg+f.addrRegs), lookup(set, id, endpointReg-1), loadMark(endpointReg-1))
	}
	write := func(op uint32) exprs {
		return exprs{&expr.Dynset{SrcRegKey: reg(id), SrcRegData: reg(endpointReg - 1), SetName: setClients, Operation: op, Timeout: affinity}}
	}
	var rules []rule
	for _, known := range []exprs{
		join(f.serviceKey(), loadMark(id), lookup(setIDs, keyReg, id-1)),
		join(f.nodePortKey(), loadMark(id), lookup(setNodePortIDs, keyReg, id-1)),
	} {
		had := join(known, client, endpoint(setClients))
		chosen := join(known, random(after, n), endpoint(choices))
		rules = append(rules,
			rule{"the endpoint that the client had, if it still serves", join(had, in(members, endpointReg),
				write(unix.NFT_DYNSET_OP_UPDATE), f.translate())},
			// An update keeps the value that is there, so a stale one has to go first.
			rule{"forget the one that does not", join(had, write(dynsetDelete))},
			rule{"any endpoint, to stick to", join(chosen, client, write(unix.NFT_DYNSET_OP_UPDATE), f.translate())},
			rule{"any endpoint, when no more clients can be remembered", join(chosen, f.translate())})
	}
	return rules
}
