package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Record is what the vault has recorded about one of its backups. Until a copy is in
// place, only Sequence, Created and Copies are known.
type Record struct {
	Sequence    int64
	Created     time.Time
	Size        int64  // bytes
	SHA256      string // of the file, in hex
	SumsSHA256  string // SHA-256 of its SHA256SUMS, in hex
	ContentHash string // the same for two backups of the same registry
	Digest      string // the content digest; the same while the configuration is
	AuditSeq    int64  // the last audit row in it
	AuditHash   string // that row's, in hex
	Nodes       int64
	SSHKeys     int64
	Signer      string    // fingerprint
	Confirmed   time.Time // the newest run that found nothing to back up since
	Verified    time.Time // when a copy was last read to its end
	Proven      time.Time // when a restore of it was last tried out, and worked

	Recipients []Recipient // who can open it
	Copies     []Copy      // in the order in which they were begun
}

// Completed reports whether a copy of the backup was written.
func (r Record) Completed() bool { return r.SHA256 != "" }

// AsOf returns the newest moment whose state the backup is known to hold.
func (r Record) AsOf() time.Time {
	if r.Confirmed.After(r.Created) {
		return r.Confirmed
	}
	return r.Created
}

// List returns the vault's backups, oldest first.
func List(ctx context.Context, v *vault.Vault) ([]Record, error) {
	var records []Record
	err := v.View(ctx, func(tx *vault.Tx) (err error) {
		records, err = selectBackups(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read backups: %w", err)
	}
	return records, nil
}

// NewestRecord returns the newest of the records of which a copy was written, or nil. They are in the
// order of [List].
func NewestRecord(records []Record) *Record {
	for i := len(records) - 1; i >= 0; i-- {
		if records[i].Completed() {
			return &records[i]
		}
	}
	return nil
}

// LastProven returns the record whose restore was tried out last, and worked; or nil.
func LastProven(records []Record) (last *Record) {
	for i, r := range records {
		if !r.Proven.IsZero() && (last == nil || r.Proven.After(last.Proven)) {
			last = &records[i]
		}
	}
	return last
}

// Open opens the first copy of the backup that can be read. Without one the error matches
// [registry.ErrNotFound] or is that of the places. The caller closes it.
func (r Record) Open(ctx context.Context, v *vault.Vault) (io.ReadCloser, error) {
	errs := []error{fmt.Errorf("backup %d: no copy of it can be read: %w", r.Sequence, registry.ErrNotFound)}
	for _, c := range r.Copies {
		if !c.There() || c.Target == "" && c.Name == "-" {
			continue
		}
		store, err := openPlace(ctx, v, c)
		if err == nil {
			var f io.ReadCloser
			if f, err = store.Open(ctx, c.name(), c.Version); err == nil {
				return f, nil
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", c, err))
	}
	return nil, errors.Join(errs...)
}
