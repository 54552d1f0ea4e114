package backup

import (
	"bytes"
	"context"
	"errors"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// stage is the sink of Restore. It writes to the new database, many rows at once, while the
// backup is read on in another goroutine.
type stage struct {
	ctx     context.Context
	tx      *vault.Tx
	inserts chan func() error // run by the goroutine that has the transaction
	stop    chan struct{}     // closed after the first of them that failed

	nodes    []registry.Node
	hostKeys []registry.HostKey
	rows     []vault.AuditRow
	kept     []vault.Slot
}

var _ sink = (*stage)(nil)

func newStage(ctx context.Context, tx *vault.Tx) *stage {
	return &stage{ctx: ctx, tx: tx, inserts: make(chan func() error, maxBatches), stop: make(chan struct{})}
}

// errStopped ends the reading. The error that counts is that of the insert.
var errStopped = errors.New("an insert failed")

// fill runs read, which gives its rows to the stage, and inserts them.
func (s *stage) fill(read func() error) error {
	readErr := make(chan error, 1)
	go func() {
		err := read()
		if err == nil {
			err = s.flush()
		}
		close(s.inserts)
		readErr <- err
	}()
	var failed error
	for insert := range s.inserts {
		if failed != nil {
			continue
		}
		if failed = insert(); failed != nil {
			close(s.stop)
		}
	}
	if err := <-readErr; failed == nil {
		return err
	}
	return failed
}

// do has an insert run.
func (s *stage) do(insert func() error) error {
	select {
	case s.inserts <- insert:
		return nil
	case <-s.stop:
		return errStopped
	}
}

// flush has all rows inserted that were collected. Rows of another kind refer to them. It does
// as much as it can without the transaction, whose goroutine has the most to do.
func (s *stage) flush() error {
	if len(s.nodes)+len(s.hostKeys)+len(s.rows) == 0 {
		return nil
	}
	nodes, err := registry.RowsOfNodes(s.nodes)
	if err != nil {
		return err
	}
	rows, err := vault.NewAuditPart(s.rows)
	if err != nil {
		return err
	}
	hostKeys := s.hostKeys
	s.nodes, s.hostKeys, s.rows = s.nodes[:0], nil, s.rows[:0]
	return s.do(func() error {
		err := registry.InsertNodeRows(s.ctx, s.tx, nodes)
		if err == nil {
			err = registry.InsertHostKeys(s.ctx, s.tx, hostKeys...)
		}
		if err == nil {
			err = s.tx.AppendAuditPart(s.ctx, rows)
		}
		return err
	})
}

func (s *stage) node(_ context.Context, n registry.Node) error {
	s.nodes = append(s.nodes, n)
	return s.flushIfMany(len(s.nodes))
}

func (s *stage) flushIfMany(n int) error {
	if n < batchSize {
		return nil
	}
	return s.flush()
}

// sshKey waits for the insert: the caller wipes the private key.
func (s *stage) sshKey(_ context.Context, k registry.SSHKey, private []byte) error {
	if err := s.flush(); err != nil {
		return err
	}
	done := make(chan struct{})
	err := s.do(func() error {
		defer close(done)
		return registry.InsertSSHKey(s.ctx, s.tx, k, private)
	})
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-s.stop:
	}
	return nil
}

func (s *stage) keyRotation(_ context.Context, k registry.KeyRotation) error {
	if err := s.flush(); err != nil {
		return err
	}
	return s.do(func() error { return registry.InsertKeyRotation(s.ctx, s.tx, k) })
}

func (s *stage) hostKey(_ context.Context, k registry.HostKey) error {
	s.hostKeys = append(s.hostKeys, k)
	return s.flushIfMany(len(s.hostKeys))
}

// target keeps its own copy of the secret: the caller wipes it.
func (s *stage) target(_ context.Context, t Target) error {
	t.Secret = bytes.Clone(t.Secret)
	return s.do(func() error {
		defer clear(t.Secret)
		return insertTarget(s.ctx, s.tx, t)
	})
}

func (s *stage) setting(_ context.Context, k registry.Setting) error {
	return s.do(func() error { return registry.InsertSetting(s.ctx, s.tx, k) })
}

func (s *stage) auditRow(_ context.Context, r vault.AuditRow) error {
	s.rows = append(s.rows, r)
	return s.flushIfMany(len(s.rows))
}

func (s *stage) slots(_ context.Context, slots []vault.Slot) error {
	s.kept = slots
	return nil
}
