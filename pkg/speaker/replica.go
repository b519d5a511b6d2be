package speaker

import (
	"net/netip"
	"sync"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

// replica is the table of claims as membership sees it. Only the speaker's loop changes the table, so that it decides on claims that
// stand still; what the others send waits in an inbox. The loop may read without the lock.
type replica struct {
	wake func()

	mu     sync.Mutex
	claims *announce.Claims

	inboxMu sync.Mutex
	inbox   [][]byte
}

// State implements membership.Replica.
func (r *replica) State() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.claims.State()
}

// Merge implements membership.Replica.
func (r *replica) Merge(b []byte) {
	r.inboxMu.Lock()
	r.inbox = append(r.inbox, b)
	r.inboxMu.Unlock()
	r.wake()
}

func (r *replica) takeInbox() [][]byte {
	r.inboxMu.Lock()
	defer r.inboxMu.Unlock()
	inbox := r.inbox
	r.inbox = nil
	return inbox
}

func (r *replica) get(a netip.Addr) announce.Claim { return r.claims.Get(a) }

func (r *replica) merge(c announce.Claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.claims.Merge(c)
}
