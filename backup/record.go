package backup

import (
	"context"
	"fmt"
	"time"

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

// Recipient can open a backup.
type Recipient struct {
	Recipient string `json:"recipient"` // public
	Label     string `json:"label"`
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
