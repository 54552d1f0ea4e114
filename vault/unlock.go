package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
	"github.com/rbee-keeper/rbee-vault/internal/trace"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// Source is where the key came from.
type Source string

// The sources, in the order in which they are asked. The first source that is present decides:
// if it fails, the next one is not tried.
const (
	FromIdentity   Source = "identity"
	FromCredential Source = "credential"
	FromKeyring    Source = "keyring"
	FromPassphrase Source = "passphrase" // asked right after the identities if Config.ByPassphrase is set
)

// CredentialName is the name of the systemd credential that holds an identity.
const CredentialName = "rbee-vault"

// unlocked is a key and its source.
type unlocked struct {
	key    *Key
	source Source
	opener opener      // the identity that opened a slot, also that of a passphrase slot
	anchor *anchorItem // that the keyring returned with the key, or nil
}

// copyFor returns a copy of a key that is known already, if it is the key of id. It leaves the
// anchor out, so that the keyring is asked for the present one.
func (u *unlocked) copyFor(id KeyID) (unlocked, bool) {
	if u == nil || u.key.ID() != id {
		return unlocked{}, false
	}
	key := *u.key
	return unlocked{key: &key, source: u.source, opener: u.opener}, true
}

// unlock gets the key of the database that begins with id. If the slots file has an entry for
// id, the key has the entry's check value.
func unlock(ctx context.Context, cfg Config, id KeyID, file slotsFile) (unlocked, error) {
	e := file.find(id)
	u, err := ask(ctx, cfg, id, file)
	if err != nil {
		if e != nil && (errors.Is(err, ErrWrongKey) || errors.Is(err, keyring.ErrUnavailable)) {
			err = fmt.Errorf("%w (the vault opens by: %s)", err, e.unlockMethods())
		}
		return unlocked{}, err
	}
	if u.key.ID() != id {
		defer u.key.Wipe()
		return unlocked{}, fmt.Errorf("%w: the %s gave the key of id %s, the database is of id %s", ErrWrongKey, u.source, u.key.ID(), id)
	}
	if e != nil && e.Check != u.key.Check() {
		defer u.key.Wipe()
		return unlocked{}, fmt.Errorf("%w: the key from the %s is not the one that the slots file names", ErrWrongKey, u.source)
	}
	return u, nil
}

// ask asks the first source that is present.
func ask(ctx context.Context, cfg Config, id KeyID, file slotsFile) (unlocked, error) {
	e := file.find(id)
	if len(cfg.Identities) > 0 {
		return byIdentities(ctx, id, file, cfg.Identities, FromIdentity)
	}
	if cfg.ByPassphrase {
		return byPassphrase(ctx, cfg, id, file)
	}
	if cfg.CredentialsDir != "" {
		identities, err := readCredential(ctx, cfg)
		if err != nil {
			return unlocked{}, err
		}
		if len(identities) > 0 {
			return byIdentities(ctx, id, file, identities, FromCredential)
		}
	}
	switch {
	case cfg.Keyring != nil && (e == nil || e.Keyring):
		return byKeyring(ctx, cfg, id, file)
	case e == nil && file.present():
		return unlocked{}, noEntry(id, file, FromIdentity)
	case e == nil:
		return unlocked{}, fmt.Errorf("%w: %w: the slots file is missing, and there is no keyring", ErrNoUnlockMethod, ErrSlotsFile)
	case cfg.Passphrase != nil && len(e.passphraseSlots()) > 0:
		return byPassphrase(ctx, cfg, id, file)
	}
	return unlocked{}, fmt.Errorf("%w: no identity is given; this vault opens by: %s", ErrNoUnlockMethod, e.unlockMethods())
}

func byIdentities(ctx context.Context, id KeyID, file slotsFile, identities []age.Identity, source Source) (unlocked, error) {
	e := file.find(id)
	if e == nil {
		return unlocked{}, noEntry(id, file, source)
	}
	defer trace.Step(ctx, "unlock", "by", source, "slots", len(e.Slots))()
	slots := e.Slots
	return identity.Await(ctx, func() (unlocked, error) { // a plugin may hang
		key, by, err := unwrapAny(slots, identities)
		return unlocked{key: key, source: source, opener: by}, err
	})
}

func byPassphrase(ctx context.Context, cfg Config, id KeyID, file slotsFile) (unlocked, error) {
	e := file.find(id)
	if e == nil {
		return unlocked{}, noEntry(id, file, FromPassphrase)
	}
	slots := e.passphraseSlots()
	if len(slots) == 0 {
		return unlocked{}, fmt.Errorf("%w: this vault has no passphrase slot; it opens by: %s", ErrNoUnlockMethod, e.unlockMethods())
	}
	defer trace.Step(ctx, "unlock", "by", FromPassphrase, "slots", len(slots))()
	u := unlocked{source: FromPassphrase}
	err := identity.AskPassphrase(ctx, cfg.Passphrase, "the vault", func(passphrase []byte) (err error) {
		u.key, u.opener, err = unwrapByPassphrase(ctx, slots, passphrase)
		return err
	})
	return u, err
}

func byKeyring(ctx context.Context, cfg Config, id KeyID, file slotsFile) (unlocked, error) {
	defer trace.Step(ctx, "unlock", "by", FromKeyring)()
	e := file.find(id)
	accounts := []string{id.String()}
	if e != nil { // the anchor is needed too, and each call of the keyring is slow
		accounts = append(accounts, anchorAccount(e.VaultID))
	}
	values, err := cfg.Keyring.GetAll(ctx, accounts...)
	if err != nil {
		return unlocked{}, err
	}
	u := unlocked{source: FromKeyring}
	if e != nil {
		u.anchor = &anchorItem{e.VaultID, values[1]}
	}
	switch {
	case values[0] != "":
	case e == nil && len(file.entries) > 0:
		return unlocked{}, noEntry(id, file, FromKeyring)
	case e == nil:
		return unlocked{}, fmt.Errorf("%w: the keyring has no key of id %s: %w: only a backup can bring the vault back", ErrWrongKey, id, ErrSlotsFile)
	default:
		// The key may have been deleted by a rotation. The anchor shows it.
		if a, err := u.anchor.parse(); err == nil && a.generation > e.Generation {
			return unlocked{}, fmt.Errorf("%w: a rotation replaced its key of generation %d: the keyring has seen generation %d", ErrRollback, e.Generation, a.generation)
		}
		return unlocked{}, fmt.Errorf("%w: %w: the keyring has no key of id %s", ErrWrongKey, ErrKeyringItem, id)
	}
	line := []byte(values[0])
	defer wipe(line)
	if u.key, err = rootkey.ParseLine(line); err != nil {
		return unlocked{}, fmt.Errorf("%w: %w: the keyring's item of id %s does not hold its key: %w", ErrWrongKey, ErrKeyringItem, id, err)
	}
	return u, nil
}

// noEntry returns the error for a key id that the slots file does not have.
func noEntry(id KeyID, file slotsFile, source Source) error {
	switch {
	case !file.present():
		return fmt.Errorf("%w: %w: the slots file is missing, and %s needs it to open the vault", ErrNoUnlockMethod, ErrSlotsFile, source)
	case file.err != nil:
		return fmt.Errorf("%w: %w: the slots file is unreadable, and %s needs it to open the vault: %w", ErrNoUnlockMethod, ErrSlotsFile, source, file.err)
	case len(file.entries) == 0:
		return fmt.Errorf("%w: %w: the slots file is empty, and %s needs it to open the vault", ErrNoUnlockMethod, ErrSlotsFile, source)
	}
	return fmt.Errorf("%w: the database begins with %s, the slots file names %s: it is another vault's database, an older copy, or its first bytes are damaged", ErrUnknownKeyID, id, file.entries[0].KeyID)
}

// unlockMethods lists how the vault can be opened.
func (e *entry) unlockMethods() string { return UnlockMethods(e.Slots, e.Keyring) }

// UnlockMethods lists in words how a vault with these slots can be opened: "1 recovery, 2 recipient,
// the OS keyring".
func UnlockMethods(slots []Slot, keyring bool) string {
	kinds := map[SlotKind]int{}
	for _, s := range slots {
		kinds[s.Kind]++
	}
	methods := []string{}
	for _, kind := range []SlotKind{SlotRecovery, SlotRecipient, SlotPassphrase, SlotCredential} {
		if n := kinds[kind]; n > 0 {
			methods = append(methods, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if keyring {
		methods = append(methods, "the OS keyring")
	}
	return strings.Join(methods, ", ")
}

// readCredential reads the service's credential. It returns nothing if systemd handed over
// none. The file's mode is not checked: access to the directory is by ACL, and the mode bits
// show only the ACL's mask.
func readCredential(ctx context.Context, cfg Config) ([]age.Identity, error) {
	dir := cfg.CredentialsDir
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: the credentials directory %q is not absolute", ErrInvalid, dir)
	}
	f, err := os.Open(filepath.Join(dir, CredentialName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%w: read credential: %w", ErrNoUnlockMethod, err)
	}
	defer f.Close()
	identities, err := identity.Parse(ctx, f, identity.Options{Name: "credential " + CredentialName, Passphrase: cfg.Passphrase, Plugins: cfg.Plugins})
	if err != nil {
		return nil, fmt.Errorf("%w: credential %q: %w", ErrWrongKey, CredentialName, err)
	}
	return identities, nil
}
