package agent

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// auditor has signatures made when their audit rows are written. While a transaction commits,
// those that wait collect, and one transaction serves them all.
type auditor struct {
	keys *registry.KeyCache
	turn chan struct{} // held by the one that commits

	mu      sync.Mutex // guards waiting
	waiting []*entry
}

// entry is a request that waits for its audit row.
type entry struct {
	request registry.SignatureRequest
	done    chan struct{} // closed when the rest is set
	pending registry.PendingSignature
	err     error
}

func newAuditor(keys *registry.KeyCache) *auditor {
	return &auditor{keys: keys, turn: make(chan struct{}, 1)}
}

// sign returns a signature whose audit row is on the disk. All that wait together use the
// same vault, because each keeps it open meanwhile.
// When it returns, nobody uses the request any more.
func (a *auditor) sign(ctx context.Context, r *registry.Registry, request registry.SignatureRequest) (*ssh.Signature, error) {
	e := &entry{request: request, done: make(chan struct{})}
	a.mu.Lock()
	a.waiting = append(a.waiting, e)
	a.mu.Unlock()
	select {
	case a.turn <- struct{}{}:
		a.commit(ctx, r)
		<-a.turn
		<-e.done // by this commit or the one before
	case <-e.done:
	case <-ctx.Done():
		if a.leave(e) {
			return nil, ctx.Err()
		}
		<-e.done // the request is in use
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.pending()
}

// leave takes a request back, unless a transaction has it.
func (a *auditor) leave(e *entry) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.waiting, e)
	if i >= 0 {
		a.waiting = slices.Delete(a.waiting, i, i+1)
	}
	return i >= 0
}

// commit writes the rows of all that wait. The caller holds the turn.
func (a *auditor) commit(ctx context.Context, r *registry.Registry) {
	a.mu.Lock()
	batch := a.waiting
	a.waiting = nil
	a.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	list := make([]registry.SignatureRequest, len(batch))
	for i, e := range batch {
		list[i] = e.request
	}
	pending, err := r.Sign(ctx, a.keys, list)
	for i, e := range batch {
		if e.err = err; err == nil {
			e.pending = pending[i]
		}
		close(e.done)
	}
}
