package agent

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// auditor writes the audit rows of signatures. While a transaction commits, those that
// wait collect, and one transaction serves them all.
type auditor struct {
	turn chan struct{} // held by the one that commits

	mu      sync.Mutex // guards waiting
	waiting []*entry
}

// entry is a signature that waits for its audit row.
type entry struct {
	signature registry.Signature
	done      chan struct{} // closed when the rest is set
	signer    ssh.MultiAlgorithmSigner
	err       error
}

func newAuditor() *auditor { return &auditor{turn: make(chan struct{}, 1)} }

// audit returns the signer of a signature when its audit row is on the disk. All that
// wait together use the same vault, because each keeps it open meanwhile. If ctx ends
// first, the row may still be written.
func (a *auditor) audit(ctx context.Context, r *registry.Registry, s registry.Signature) (ssh.MultiAlgorithmSigner, error) {
	e := &entry{signature: s, done: make(chan struct{})}
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
		return nil, ctx.Err()
	}
	switch {
	case e.err != nil:
		return nil, e.err
	case e.signer == nil:
		return nil, registry.ErrNotFound
	}
	return e.signer, nil
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
	list := make([]registry.Signature, len(batch))
	for i, e := range batch {
		list[i] = e.signature
	}
	signers, err := r.AuditSignatures(ctx, list)
	for i, e := range batch {
		if e.err = err; err == nil {
			e.signer = signers[i]
		}
		close(e.done)
	}
}
