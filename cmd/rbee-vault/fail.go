package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
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
	// errPartial: only a part was done; the messages say what was not.
	errPartial = errors.New("only partly done")
	// errFindings: doctor found problems, and none is damage.
	errFindings = errors.New("there are problems")
	// errDeclined: the operator answered no.
	errDeclined = errors.New("nothing was done")
	// errNeedsFlag: the command cannot prompt, and no flag answers the question.
	errNeedsFlag = errors.New("cannot prompt")
)

// failure is what an error means to the caller of the command.
type failure struct {
	err  error
	code int
	name string // stable, for --json
	hint string
}

// failures is searched from the top: if an error wraps several of these, the first one
// decides.
var failures = []failure{
	{context.Canceled, exitInterrupted, "interrupted", ""},
	{errDeclined, exitError, "declined", ""},
	{errNeedsFlag, exitUsage, "needs_flag", ""},
	{errPartial, exitPartial, "partial", ""},
	{errFindings, exitPartial, "findings", ""},
	{errRestored, exitPartial, "restored", ""},
	{backup.ErrPartial, exitPartial, "partial", "The copies that were written are good. What a target lacks: rbee-vault backup target check NAME. The next backup tries every target again."},
	{backup.ErrNotRecorded, exitPartial, "not_recorded", "The backup is good, but `rbee-vault backup list` does not list it."},
	{backup.ErrUnreachable, exitError, "unreachable", "Is the network up, and is the endpoint right? Try again later: rbee-vault backup target check NAME"},
	{backup.ErrDenied, exitError, "store_denied", "Give the target a credential that may write there, or correct the machine's AWS configuration. To change a target, remove it and add it again."},
	{backup.ErrUnsupported, exitInvalid, "unsupported", ""},
	{backup.ErrStoreFull, exitError, "store_full", ""},
	{backup.ErrLocked, exitInvalid, "object_locked", "It can be deleted when its lock has ended."},
	{vault.ErrUnknownOutcome, exitError, "unknown_outcome", "Check whether the change was made before you try again: rbee-vault audit list"},
	{vault.ErrNewer, exitNewer, "newer_version", "Install the rbee-vault that wrote it, or a later one."},
	{vault.ErrUnvouched, exitUntrusted, "unvouched", "Compare the fingerprint with your sheet. If it is the same, give it: --signer SHA256:..., or --signer and the sheet's file"},
	{vault.ErrSuccessor, exitUntrusted, "successor", "If the key was rotated after that sheet was written, give the signer on the newer sheet, or add --accept-successor."},
	{backup.ErrSuccessor, exitUntrusted, "successor", "If the key was rotated after that sheet was written, give the signer on the newer sheet, or add --accept-successor."},
	{vault.ErrForeignSigner, exitDamaged, "foreign_signer", "It may not be your vault. If a sheet of yours names this signer, give it: --signer SHA256:... Otherwise restore a backup: rbee-vault restore FILE --replace"},
	{vault.ErrOtherVault, exitDamaged, "other_vault", "Put the right database in place, or leave out --vault-id."},
	{backup.ErrUntrusted, exitUntrusted, "untrusted", "Give the fingerprint on the recovery sheet: --signer SHA256:..."},
	{backup.ErrOtherBackup, exitDamaged, "other_backup", "Nothing was changed. Find out who renamed or replaced the file. If you want that older backup, give its own name back to it."},
	{backup.ErrDamaged, exitDamaged, "backup_damaged", "Use another copy of this backup, or an earlier backup: rbee-vault backup list --check"},
	{backup.ErrNotProven, exitDamaged, "not_proven", "Keep this file to find out what happened. Make a new backup and try that out: rbee-vault backup, then rbee-vault backup drill"},
	{vault.ErrRollback, exitDamaged, "rollback", "If you put the older copy there yourself, add --accept-rollback. If you did not, find out who did."},
	{vault.ErrUnknownKeyID, exitDamaged, "unknown_key_id", "Put the database and its own slots file side by side, or restore a backup: rbee-vault restore FILE --replace"},
	{vault.ErrMissing, exitDamaged, "database_missing", "Put the database back beside its slots file, or restore a backup: rbee-vault restore FILE"},
	{vault.ErrLogGone, exitDamaged, "log_gone", "Close every program that has the vault open, then check which of the last changes were kept: rbee-vault audit list"},
	{vault.ErrAudit, exitDamaged, "audit_broken", "Compare with a backup's audit_log.jsonl to see what was changed."},
	{vault.ErrDamaged, exitDamaged, "damaged", "Restore a backup: rbee-vault restore FILE --replace (`rbee-vault doctor` reports what is damaged)"},
	{registry.ErrConflict, exitExists, "conflict", "Nothing was changed. To take the backup's side: --prefer backup. To leave these as they are: --prefer live"},
	{registry.ErrHostKeyChanged, exitDamaged, "host_key_changed", ""},
	{registry.ErrBadRow, exitDamaged, "bad_row", "Remove the row (`rbee-vault node remove NAME`) and add the node again."},
	{vault.ErrPlaintext, exitExists, "plaintext", "It is a registry as it was before the vault. Make a vault under another name, and import the file: rbee-vault init --db FILE.vault && rbee-vault node import FILE --db FILE.vault"},
	{vault.ErrFileExists, exitExists, "exists", "Nothing was written. Choose a file that does not exist."},
	{vault.ErrExists, exitExists, "exists", ""},
	{backup.ErrExists, exitExists, "exists", "Choose another name: a backup never replaces a file."},
	{registry.ErrExists, exitExists, "exists", ""},
	{vault.ErrNoVault, exitNoVault, "no_vault", "Create a vault: rbee-vault init. Or restore a backup: rbee-vault restore FILE"},
	{unixsocket.ErrInUse, exitExists, "agent_in_use", "One agent is enough. To look at it: rbee-vault agent status. For a second one: --socket PATH"},
	{vault.ErrLocked, exitLocked, "locked", "Wait until the other process is done, or wait longer for it: --wait 1m"},
	{vault.ErrAlreadyOpen, exitLocked, "already_open", "The file belongs to the vault that this command has open. Choose another file."},
	{vault.ErrUnsettled, exitError, "unsettled", "Free disk space or fix the directory's permissions, and try again."},
	{vault.ErrReadOnly, exitInvalid, "read_only", ""},
	{keyring.ErrNoBus, exitKeyring, "keyring_no_bus", "There is no D-Bus session here (ssh, cron, systemd?). Open with an identity: --identity FILE"},
	{keyring.ErrNoProvider, exitKeyring, "keyring_no_provider", "Start gnome-keyring, KWallet or KeePassXC, or open with an identity: --identity FILE"},
	{keyring.ErrNoCollection, exitKeyring, "keyring_no_collection", "Create a default keyring in your keyring program, or open with an identity: --identity FILE"},
	{keyring.ErrLocked, exitKeyring, "keyring_locked", "Unlock it, or run without --no-input on a terminal, or open with an identity: --identity FILE"},
	{keyring.ErrDismissed, exitKeyring, "keyring_dismissed", "Unlock the keyring and try again, or open with an identity: --identity FILE"},
	{keyring.ErrTimeout, exitKeyring, "keyring_timeout", "Restart the keyring program, or open with an identity: --identity FILE"},
	{keyring.ErrReadBack, exitKeyring, "keyring_read_back", "The keyring did not keep the key: was its prompt dismissed? Nothing was changed. Try again, or use --no-keyring."},
	{keyring.ErrNotDeleted, exitWrongKey, "keyring_not_deleted", "Another item has the same account: remove it in your keyring program (service rbee-vault)."},
	{keyring.ErrUnavailable, exitKeyring, "keyring_unavailable", "Open with an identity: --identity FILE"},
	{vault.ErrSlotsFile, exitWrongKey, "slots_file", "Put back the slots file that belongs to this database, or restore a backup: rbee-vault restore FILE --replace"},
	{vault.ErrKeyringItem, exitWrongKey, "keyring_item", "Open with another unlock method, and write the item again: rbee-vault slot add keyring --identity FILE"},
	{vault.ErrWrongKey, exitWrongKey, "wrong_key", "Try another unlock method: --identity FILE with the recovery identity or a recipient's, or --passphrase."},
	{vault.ErrNoUnlockMethod, exitWrongKey, "no_unlock_method", "Give the recovery identity or a recipient's: --identity FILE. Or a passphrase: --passphrase"},
	{vault.ErrNoSlot, exitNotFound, "no_slot", "`rbee-vault slot list` lists the slots."},
	{vault.ErrSlotExists, exitExists, "slot_exists", ""},
	{vault.ErrLastSlot, exitInvalid, "last_slot", "Add another first: rbee-vault slot add recovery, or recipient"},
	{vault.ErrPlugin, exitError, "plugin", "Install the plugin, or remove that recipient: rbee-vault slot remove ID"},
	{vault.ErrNetworkFS, exitInvalid, "network_fs", "Keep the vault on a local disk, and send backups over the network. If only one machine ever has it open: --allow-network-fs"},
	{vault.ErrInsecure, exitError, "insecure", ""},
	{errNoAgent, exitNotFound, "no_agent", ""},
	{registry.ErrNotFound, exitNotFound, "not_found", ""},
	{fs.ErrNotExist, exitNotFound, "not_found", ""},
	{registry.ErrInUse, exitInvalid, "in_use", ""},
	{registry.ErrWeakKey, exitInvalid, "weak_key", ""},
	{registry.ErrNotRegistry, exitInvalid, "not_a_registry", ""},
	{registry.ErrLegacyDamaged, exitInvalid, "plaintext_damaged", "No vault was touched. Take another copy of the file, or save what it still holds: sqlite3 FILE .recover | sqlite3 NEW-FILE"},
	{vault.ErrNotPlaintext, exitInvalid, "not_plaintext", ""},
	{vault.ErrInvalid, exitInvalid, "invalid", ""},
}

// outcomeHints are the next steps where a node is not online. NODE stands for the node that
// failed, FINGERPRINT for the host key that it presented, PINNED for the pinned one.
var outcomeHints = map[hive.Outcome]string{
	hive.Unreachable:     "Is the machine on, and is its address right? rbee-vault node show NODE",
	hive.Refused:         "Is sshd running there, and is the port right? rbee-vault node show NODE",
	hive.TimedOut:        "Is the machine on, or does a firewall drop the port? To wait longer: --timeout 30s",
	hive.HostKeyUnknown:  "Compare it with the key on the machine itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub). If it is the same: rbee-vault host-key trust NODE --fingerprint FINGERPRINT",
	hive.HostKeyChanged:  "It may be another machine. If you know why the key changed: rbee-vault host-key trust NODE --fingerprint FINGERPRINT --replace PINNED",
	hive.NoKey:           "Give it one: rbee-vault ssh-key generate --node NODE, or ssh-key assign KEY NODE",
	hive.PermissionDeny:  "Is its SSH key in the user's authorized_keys on the machine? `rbee-vault node show NODE` names the key. To add it there: rbee-vault ssh-key install NODE",
	hive.Busy:            "Too many logins are under way there. Its status stays as it was; try again later.",
	hive.JumpLoop:        "Another program wrote its jumps. To take one away: rbee-vault node update NODE --jump ''",
	hive.ProtocolFailure: "Is it an SSH server, and is the port right? rbee-vault node show NODE",
}

// accessHint is the next step where the operator's own access does not open a node.
const accessHint = "Your own access does not open it. Is its user right? Load another key into your agent (ssh-add), or use --password."

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
	return failure{err, exitError, "error", hint(err, "")}
}

// failureHint returns the next step after an error that is only a part of what failed.
func failureHint(err error) string { return classify(err).hint }

// exitStatus is that of a program which ran in place of the command, and has said itself
// what failed. It is not 0.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// hintError is an error with a hint of its own, in place of the one in failures.
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
		return "Fix it: " + insecure.Fix
	}
	return fallback
}
