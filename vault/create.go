package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// CreateOptions says how a new vault can be opened besides the keyring. At least one of
// Recipients, RecoveryFile, RecoverySheets and ShowRecovery is required.
type CreateOptions struct {
	// Recipients are age or SSH public keys; see [identity.ParseRecipient].
	Recipients []string
	// PostQuantum makes a vault of that class: its recipients are "age1pq1...".
	PostQuantum bool
	// RecoveryFile is where the recovery identity is written. The file must not exist.
	RecoveryFile string
	// RecoverySheets are further files for the recovery identity. They must not exist.
	RecoverySheets []IdentityFile
	// NoKeyring keeps the key out of cfg.Keyring. The keyring is then used only to delete what
	// an interrupted run stored in it.
	NoKeyring bool
	// ShowRecovery gets the recovery identity if it goes into no file. It returns when the
	// operator has it. If it returns an error, no vault is made.
	ShowRecovery func(context.Context, NewIdentity) error
}

// Created describes a new vault.
type Created struct {
	Path              string
	VaultID           string
	KeyID             KeyID
	Signer            string // a line as in authorized_keys
	RecoveryRecipient string // "" if no recovery identity was made
	Slots             []Slot
}

// Create makes a new vault at cfg.Path, and the directory if there is none. It stores the key
// in cfg.Keyring, if there is one, and wraps it for the recipients. It removes what an
// interrupted run left.
//
// Errors: [ErrExists] for any database at the path (with [ErrPlaintext] if it is an ordinary
// SQLite database), [ErrFileExists] for RecoveryFile, [ErrMissing] if there is a slots file but
// no database, [ErrInvalid], [ErrInsecure], [ErrLocked], an error of package keyring. After any
// of them there is no vault.
func Create(ctx context.Context, cfg Config, opts CreateOptions) (Created, error) {
	slots, err := opts.parse(ctx, cfg)
	if err != nil {
		return Created{}, err
	}
	p, err := newVaultPaths(cfg.Path)
	if err == nil {
		err = p.checkOutputs(opts.recoveryFiles(false))
	}
	if err != nil {
		return Created{}, err
	}
	if err := mustNotExist(p); err != nil {
		return Created{}, err
	}
	t := newTransition(cfg, p, rootkey.Generate(), cfg.Keyring != nil && !opts.NoKeyring)
	if err := t.preparePlace(ctx); err != nil {
		return Created{}, err
	}
	lock := durable.NewLock(p.lock)
	if err := take(ctx, cfg, lock, lock.Exclusive); err != nil {
		return Created{}, err
	}
	defer lock.Unlock()
	if err := mustNotExist(p); err != nil {
		return Created{}, err
	}
	interrupted, lost, err := clearInterruptedRun(ctx, cfg, p, t.meta.Keyring)
	if lost {
		err = missing(p)
	}
	if err != nil {
		return Created{}, err
	}

	t.meta.Class = opts.class()
	t.vouchKeys = vouchKeys(cfg.Identities)
	for _, s := range slots {
		t.slots = append(t.slots, newSlot(s, t.meta.Created))
	}
	var recovery NewIdentity
	if opts.recoverable() {
		if recovery, err = t.addRecovery(opts, interrupted); err != nil {
			return Created{}, err
		}
	}
	t.fill = t.fillEmpty
	if err := t.run(ctx); err != nil {
		return Created{}, err
	}
	made := t.created()
	made.RecoveryRecipient = recovery.Recipient
	return made, nil
}

// fillEmpty writes no rows: a new vault has none but those of every vault.
func (t *transition) fillEmpty(context.Context, *Tx) (Event, error) {
	return Event{Action: ActionInit, Subject: t.meta.VaultID, Detail: fmt.Sprintf("%d slots, keyring %t", len(t.slots), t.meta.Keyring)}, nil
}

func (o CreateOptions) class() identity.Class {
	if o.PostQuantum {
		return identity.PostQuantum
	}
	return identity.Classic
}

// recoverable reports whether a recovery identity is to be made.
func (o CreateOptions) recoverable() bool {
	return o.RecoveryFile != "" || len(o.RecoverySheets) > 0 || o.ShowRecovery != nil
}

// parse returns the slots of the recipients. There must be one, or a recovery identity.
func (o CreateOptions) parse(ctx context.Context, cfg Config) ([]Slot, error) {
	slots, err := identity.Await(ctx, func() ([]Slot, error) { return parseRecipients(o.Recipients, o.class(), cfg.Plugins) })
	if err == nil && len(slots) == 0 && !o.recoverable() {
		err = fmt.Errorf("%w: a vault needs a recovery identity or a recipient: without one, losing the keyring loses the vault", ErrInvalid)
	}
	return slots, err
}

// preparePlace makes and checks the directory of a new vault. Before anything is made, it
// sees that the keyring answers.
func (t *transition) preparePlace(ctx context.Context) error {
	if t.meta.Keyring {
		if err := probeKeyring(ctx, t.cfg.Keyring, t.key.ID()); err != nil {
			return err
		}
	}
	if err := makeDir(t.cfg.fs(), t.paths.dir); err != nil {
		return err
	}
	if err := t.paths.checkPrivate(); err != nil {
		return err
	}
	return t.paths.checkPlace(t.cfg)
}

// addRecovery adds a slot for a recovery identity, which is handed over before the commit.
func (t *transition) addRecovery(opts CreateOptions, interrupted []string) (NewIdentity, error) {
	recovery, again, err := makeRecovery(t.meta.Class, opts.RecoveryFile, interrupted)
	if err != nil {
		return NewIdentity{}, err
	}
	recovery.Kind = SlotRecovery
	recovery.VaultID, recovery.Created = t.meta.VaultID, t.meta.Created
	t.vouchKeys[recovery.Recipient] = recovery.vouchKey()
	t.sheet = true
	t.slots = append(t.slots, newSlot(Slot{Kind: SlotRecovery, Label: string(SlotRecovery), Recipient: recovery.Recipient}, t.meta.Created))
	t.handOver = func(ctx context.Context) error {
		signed := recovery
		signed.Signer, signed.Path = t.meta.Signer, t.paths.db
		files, show := opts.recoveryFiles(again), opts.ShowRecovery
		if len(files) > 0 {
			show = nil
		}
		undo, err := handOver(ctx, t.cfg.fs(), signed, files, show)
		t.undoHandOver = func() {
			if undo != nil {
				undo()
			}
			if opts.RecoveryFile != "" {
				removeRecoveryFile(t.cfg.fs(), opts.RecoveryFile, recovery)
			}
		}
		return err
	}
	if opts.RecoveryFile != "" { // of an interrupted run
		t.undoHandOver = func() { removeRecoveryFile(t.cfg.fs(), opts.RecoveryFile, recovery) }
	}
	return recovery, nil
}

// recoveryFiles are the files for the recovery identity. again: see IdentityFile.
func (o CreateOptions) recoveryFiles(again bool) []IdentityFile {
	if o.RecoveryFile == "" {
		return o.RecoverySheets
	}
	return append([]IdentityFile{{Path: o.RecoveryFile, again: again}}, o.RecoverySheets...)
}

// created describes the vault that the transition made.
func (t *transition) created() Created {
	return Created{
		Path:    t.paths.db,
		VaultID: t.meta.VaultID,
		KeyID:   t.meta.KeyID,
		Signer:  t.meta.Signer,
		Slots:   t.slots,
	}
}

// CheckAbsent returns the error that [Create], or a [Restore] that does not replace, has for what
// is at the path of a database: [ErrExists], with [ErrPlaintext] for an ordinary SQLite database,
// or [ErrInvalid] for a link that leads nowhere.
func CheckAbsent(path string) error {
	p, err := newPaths(path)
	if err != nil {
		return err
	}
	return mustNotExist(p)
}

// mustNotExist is [CheckAbsent] for the paths of a database.
func mustNotExist(p paths) error {
	ok, err := durable.Exists(p.db)
	if err != nil || !ok {
		return err
	}
	if _, err := os.Stat(p.db); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q is a link to a file that does not exist: remove the link first", ErrInvalid, p.db)
	}
	if _, err := peekKeyID(p.db); errors.Is(err, ErrPlaintext) {
		return fmt.Errorf("%q %w: %w", p.db, ErrExists, ErrPlaintext)
	}
	return fmt.Errorf("%q %w", p.db, ErrExists)
}

// makeRecovery makes the recovery identity, or uses the one in the file of an interrupted run
// again.
func makeRecovery(class identity.Class, file string, interrupted []string) (r NewIdentity, again bool, err error) {
	if file != "" {
		r, err = readRecovery(file, interrupted)
		switch {
		case err == nil:
			return r, true, nil
		case !errors.Is(err, fs.ErrNotExist):
			return NewIdentity{}, false, err
		}
		if err := checkDir(filepath.Dir(file)); err != nil {
			return NewIdentity{}, false, err
		}
	}
	r, err = newIdentity(class)
	return r, false, err
}
