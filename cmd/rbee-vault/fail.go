package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Exit codes. They are a promise: codes are only added.
const (
	exitOK          = 0
	exitError       = 1
	exitPartial     = 3
	exitNoVault     = 10
	exitLocked      = 11
	exitWrongKey    = 12
	exitKeyring     = 13
	exitNotFound    = 14
	exitExists      = 15
	exitInvalid     = 16
	exitNewer       = 17
	exitDamaged     = 18
	exitUntrusted   = 19
	exitUsage       = 64
	exitInterrupted = 130
)

var (
	// errPartial: some of what was asked was done; the messages say what not.
	errPartial = errors.New("done in part")
	// errFindings: doctor found what should not be, and it is not damage.
	errFindings = errors.New("not everything is well")
	// errDeclined: the operator said no.
	errDeclined = errors.New("nothing was done")
	// errNeedsFlag: nobody can be asked, and no flag answers the question.
	errNeedsFlag = errors.New("nobody can be asked")
)

// failure is what an error means to the caller of the command.
type failure struct {
	err  error
	code int
	name string // stable, for --json
	hint string
}

// failures is searched from the top: where one error wraps several, the one that
// decides stands first.
var failures = []failure{
	{context.Canceled, exitInterrupted, "interrupted", ""},
	{errDeclined, exitError, "declined", ""},
	{errNeedsFlag, exitUsage, "needs_flag", ""},
	{errPartial, exitPartial, "partial", ""},
	{errFindings, exitPartial, "findings", ""},
	{backup.ErrNotRecorded, exitPartial, "not_recorded", "The file is good; `rbee-vault backup list` does not know of it."},
	{vault.ErrUnknownOutcome, exitError, "unknown_outcome", "Look whether the change is there before you try again: rbee-vault audit list"},
	{vault.ErrNewer, exitNewer, "newer_version", "Install the rbee-vault that wrote it, or a later one."},
	{vault.ErrUnvouched, exitUntrusted, "unvouched", "Compare the fingerprint with your sheet, and give it: --signer SHA256:..., or --signer and the sheet's file"},
	{vault.ErrSuccessor, exitUntrusted, "successor", "If the key was rotated since that sheet was written, give the newer sheet's signer, or add --accept-successor."},
	{backup.ErrSuccessor, exitUntrusted, "successor", "If the key was rotated since that sheet was written, give the newer sheet's signer, or add --accept-successor."},
	{vault.ErrForeignSigner, exitDamaged, "foreign_signer", "It may not be your vault. If you know who signs for it, from a sheet, say so: --signer SHA256:...; else restore a backup: rbee-vault restore FILE --replace"},
	{vault.ErrOtherVault, exitDamaged, "other_vault", "Put the right database in place, or leave --vault-id out."},
	{backup.ErrUntrusted, exitUntrusted, "untrusted", "Give the fingerprint that stands on the recovery sheet: --signer SHA256:..."},
	{backup.ErrDamaged, exitDamaged, "backup_damaged", "Take another copy of this backup, or an earlier one: rbee-vault backup list --check"},
	{vault.ErrRollback, exitDamaged, "rollback", "If you put the older copy there yourself, add --accept-rollback; if not, find out who did."},
	{vault.ErrUnknownKeyID, exitDamaged, "unknown_key_id", "Put the right database and slots file side by side, or restore a backup: rbee-vault restore FILE --replace"},
	{vault.ErrMissing, exitDamaged, "database_missing", "Put the database back beside its slots file, or restore a backup: rbee-vault restore FILE"},
	{vault.ErrLogGone, exitDamaged, "log_gone", "Close every program that has the vault open, then see which of the last changes are there: rbee-vault audit list"},
	{vault.ErrAudit, exitDamaged, "audit_broken", "Compare with a backup's audit_log.jsonl to see what was changed."},
	{vault.ErrDamaged, exitDamaged, "damaged", "A backup brings the vault back: rbee-vault restore FILE --replace (`rbee-vault doctor` tells what is damaged)"},
	{registry.ErrHostKeyChanged, exitDamaged, "host_key_changed", ""},
	{registry.ErrBadRow, exitDamaged, "bad_row", "Remove the row (`rbee-vault node remove NAME`) and add the node anew."},
	{vault.ErrPlaintext, exitExists, "plaintext", ""},
	{vault.ErrFileExists, exitExists, "exists", "Nothing was made. Name a new file."},
	{vault.ErrExists, exitExists, "exists", ""},
	{backup.ErrExists, exitExists, "exists", "Choose another name: a backup never replaces a file."},
	{registry.ErrExists, exitExists, "exists", ""},
	{vault.ErrNoVault, exitNoVault, "no_vault", "Make one: rbee-vault init. Or bring one back: rbee-vault restore FILE"},
	{vault.ErrLocked, exitLocked, "locked", "Wait for the other process, or give it longer: --wait 1m"},
	{vault.ErrAlreadyOpen, exitLocked, "already_open", "It is a file of the vault itself, which this command has open: name another one."},
	{vault.ErrUnsettled, exitError, "unsettled", "Make room on the disk, or mend the directory's permissions, and try again."},
	{vault.ErrReadOnly, exitInvalid, "read_only", ""},
	{keyring.ErrNoBus, exitKeyring, "keyring_no_bus", "There is no D-Bus session here (ssh, cron, systemd?). Open by identity: --identity FILE"},
	{keyring.ErrNoProvider, exitKeyring, "keyring_no_provider", "Start gnome-keyring, KWallet or KeePassXC, or open by identity: --identity FILE"},
	{keyring.ErrNoCollection, exitKeyring, "keyring_no_collection", "Create a default keyring in your keyring program, or open by identity: --identity FILE"},
	{keyring.ErrLocked, exitKeyring, "keyring_locked", "Unlock it, or run without --no-input on a terminal, or open by identity: --identity FILE"},
	{keyring.ErrDismissed, exitKeyring, "keyring_dismissed", "Unlock the keyring and try again, or open by identity: --identity FILE"},
	{keyring.ErrTimeout, exitKeyring, "keyring_timeout", "Restart the keyring program, or open by identity: --identity FILE"},
	{keyring.ErrReadBack, exitKeyring, "keyring_read_back", "The keyring lost what it was given: was its prompt dismissed? Nothing was changed; try again, or use --no-keyring."},
	{keyring.ErrNotDeleted, exitWrongKey, "keyring_not_deleted", "Another item answers to this account: remove it in your keyring program (service rbee-vault)."},
	{keyring.ErrUnavailable, exitKeyring, "keyring_unavailable", "Open by identity: --identity FILE"},
	{vault.ErrSlotsFile, exitWrongKey, "slots_file", "Put back the slots file that belongs to this database, or restore a backup: rbee-vault restore FILE --replace"},
	{vault.ErrKeyringItem, exitWrongKey, "keyring_item", "Open in another way, and write it again: rbee-vault slot add keyring --identity FILE"},
	{vault.ErrWrongKey, exitWrongKey, "wrong_key", "Try another way in: --identity FILE with the recovery identity or a recipient's, or --passphrase."},
	{vault.ErrNoWayIn, exitWrongKey, "no_way_in", "Give the recovery identity or a recipient's: --identity FILE. Or a passphrase: --passphrase"},
	{vault.ErrNoSlot, exitNotFound, "no_slot", "`rbee-vault slot list` shows which there are."},
	{vault.ErrSlotExists, exitExists, "slot_exists", ""},
	{vault.ErrLastSlot, exitInvalid, "last_slot", "Add another first: rbee-vault slot add recovery, or recipient"},
	{vault.ErrPlugin, exitError, "plugin", "Install the plugin, or do without that recipient: rbee-vault slot remove ID"},
	{vault.ErrNetworkFS, exitInvalid, "network_fs", "Keep the vault on a local disk and carry backups over the network. Or, if only one machine ever has it open: --allow-network-fs"},
	{vault.ErrInsecure, exitError, "insecure", ""},
	{registry.ErrNotFound, exitNotFound, "not_found", ""},
	{fs.ErrNotExist, exitNotFound, "not_found", ""},
	{registry.ErrInUse, exitInvalid, "in_use", ""},
	{registry.ErrWeakKey, exitInvalid, "weak_key", ""},
	{registry.ErrNotRegistry, exitInvalid, "not_a_registry", ""},
	{registry.ErrLegacyDamaged, exitInvalid, "plaintext_damaged", "No vault was touched. Take another copy of the file, or save what it still holds: sqlite3 FILE .recover | sqlite3 NEW-FILE"},
	{vault.ErrNotPlaintext, exitInvalid, "not_plaintext", ""},
	{vault.ErrInvalid, exitInvalid, "invalid", ""},
}

// classify returns what an error means.
func classify(err error) failure {
	if isUsage(err) {
		return failure{err, exitUsage, "usage", hint(err, "")}
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			f.hint = hint(err, f.hint)
			return f
		}
	}
	return failure{err, exitError, "error", ""}
}

// usageError is a command line that the command cannot take: exit 64.
type usageError string

func (e usageError) Error() string { return string(e) }

// usagef reports wrong flags and arguments.
func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// hintError is an error with a hint that only its place knows.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// withHint adds the next step to an error.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hintError{err, fmt.Sprintf(format, args...)}
}

func hint(err error, fallback string) string {
	if h, ok := errors.AsType[hintError](err); ok {
		return h.hint
	}
	if insecure, ok := errors.AsType[*vault.InsecureError](err); ok {
		return "Mend it: " + insecure.Mend
	}
	return fallback
}
