package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// errRestored: two logs part where one vault was made from an earlier backup of the other.
// Nobody tampered, but the later rows of the other one are in one log only.
var errRestored = errors.New("the logs part at a restore")

// backupLog is the audit log in a backup, whose chain is good.
type backupLog struct {
	manifest backup.Manifest
	hashes   [][32]byte               // of its rows, from row 1 on
	restores map[int64]vault.AuditRow // the rows that say that a vault was restored
}

// add is called with each row, oldest first.
func (l *backupLog) add(row vault.AuditRow) {
	l.hashes = append(l.hashes, row.Hash)
	if row.Action == string(vault.ActionRestore) {
		if l.restores == nil {
			l.restores = map[int64]vault.AuditRow{}
		}
		l.restores[row.Seq] = row
	}
}

// continues checks that the vault's log, whose chain is good, continues the log in a backup.
func continues(ctx context.Context, tx *vault.Tx, head vault.AuditHead, l backupLog) error {
	meta, err := tx.Meta(ctx)
	if err != nil {
		return err
	}
	common, err := backup.CommonRows(ctx, tx, l.hashes)
	if err != nil {
		return err
	}
	var next vault.AuditRow // ours, behind the common rows
	for row, err := range tx.AuditRows(ctx, common+1) {
		if err != nil {
			return err
		}
		next = row
		break
	}
	m := l.manifest
	switch {
	case common == m.AuditSeq:
		return nil
	case common == 0 && m.VaultID != meta.VaultID && m.VaultID != meta.OriginVaultID:
		return fmt.Errorf("could not check: %w: the backup is of vault %s, this is vault %s", vault.ErrInvalid, m.VaultID, meta.VaultID)
	case common == 0:
		return fmt.Errorf("tampered: %w: the log and the backup have no row in common", vault.ErrAudit)
	case restoredBy(next, m.VaultID):
		return withHint(fmt.Errorf("%w: this vault was restored from an earlier backup of vault %s, and has its own rows since row %d (%s by %s); %d rows of the backup are not in its log",
			errRestored, m.VaultID, next.Seq, next.At.Format(time.RFC3339), next.Actor, m.AuditSeq-common),
			"Nothing shows that the log was tampered with. To see what the restore undid: rbee-vault restore FILE --diff")
	case restoredBy(l.restores[common+1], meta.VaultID):
		return withHint(fmt.Errorf("%w: the backup is of vault %s, which was restored from an earlier backup of this vault, and has its own rows since row %d", errRestored, m.VaultID, common+1),
			"Nothing shows that the log was tampered with. This may be the vault that the restore replaced.")
	case common == head.Seq:
		return fmt.Errorf("truncated: %w: the log ends with row %d, the log in the backup with row %d", vault.ErrAudit, head.Seq, m.AuditSeq)
	}
	return withHint(fmt.Errorf("parted: %w: row %d differs from the backup; up to row %d both are the same; here it is %s of %s by %s", vault.ErrAudit, common+1, common, next.Action, next.At.Format(time.RFC3339), next.Actor),
		"Another copy of this vault was used from there on, or somebody who has its key rewrote the log. See what was done: rbee-vault audit list")
}

// restoredBy reports whether a row says that a vault was restored from a backup of the vault
// with the id. A restored vault has an id of its own: a row that says that a vault was
// restored from itself is forged.
func restoredBy(row vault.AuditRow, from string) bool {
	return row.Action == string(vault.ActionRestore) && row.Subject != from && strings.HasPrefix(row.Detail, "from vault "+from+", ")
}
