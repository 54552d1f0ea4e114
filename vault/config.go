package vault

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Keyring is what the vault needs of an OS keyring; [keyring.Keyring] implements it. For an
// absent item, Get returns [keyring.ErrNotFound] and GetAll returns "". When Set returns nil,
// it has read the item back. When Delete returns nil, it has checked that the item is gone.
type Keyring interface {
	Get(ctx context.Context, account string) (string, error)
	GetAll(ctx context.Context, accounts ...string) ([]string, error)
	Set(ctx context.Context, account, value string) error
	Delete(ctx context.Context, account string) error
}

// Config says where a vault is and how it may be opened. Path is required. The zero value of
// every other field is usable.
type Config struct {
	// Path of the database. See [DefaultPath].
	Path string

	// Identities are tried on the slots; see [identity.Parse]. If there are any, no other
	// source of the key is asked.
	Identities []age.Identity
	// Passphrase asks for the passphrase of a passphrase slot. It is the last source. Nil:
	// passphrases are not asked for.
	Passphrase identity.PassphraseFunc
	// ByPassphrase asks Passphrase before the credential and the keyring.
	ByPassphrase bool
	// Plugins is how an age plugin, of a recipient or an identity, asks a person. Nil: it
	// cannot ask.
	Plugins *plugin.ClientUI
	// CredentialsDir is where systemd puts a service's credentials ($CREDENTIALS_DIRECTORY). A
	// file "rbee-vault" in it is an identity. It is asked before the keyring. Empty: none.
	CredentialsDir string
	// Keyring is asked after Identities and the credential. Nil: none.
	Keyring Keyring

	// VaultID is the id that the vault at Path must have. For another id, Open returns
	// [ErrOtherVault]. Empty: any id.
	VaultID string
	// Signer is the fingerprint of the vault's signer, "SHA256:...", from the
	// operator's sheet. Empty: see ConfirmSigner.
	Signer string
	// AcceptSuccessor also accepts a certified successor of Signer.
	AcceptSuccessor bool
	// ConfirmSigner asks the operator whether to open a vault by an identity if nothing else
	// vouches for its signer. An error refuses it. Nil: Open returns [ErrUnvouched].
	ConfirmSigner func(context.Context, Unvouched) error

	// Wait is how long to wait for a lock that another process holds. It applies to each lock.
	// 0: 10 s.
	Wait time.Duration
	// AllowNetworkFS makes and opens a vault on a network file system, or on one that a program
	// serves (FUSE). Two machines must never have it open at once: their locks may not see each
	// other, and rows are lost.
	AllowNetworkFS bool
	// AcceptRollback opens a database that is older than its slots file or than the keyring's
	// anchor. The slots file is copied aside, the anchor is written again, and the audit log
	// records it.
	AcceptRollback bool

	// Actor and Via are stored in each audit row: the person, and the program. Empty: the OS
	// user, and the program's file name. A context from [WithActor] overrides them.
	Actor, Via string

	// Logger receives what was repaired, removed or left behind. Nil: discarded.
	Logger *slog.Logger
	// Now is the clock. Nil: [time.Now].
	Now func() time.Time

	// FS is the file system for everything but SQLite's own files. Nil: [durable.OS].
	FS durable.FS
	// networkFS replaces durable.NetworkFS in tests, which cannot mount a network file system.
	networkFS func(dir string) (string, error)
	// migrations replaces the embedded schema migrations in tests.
	migrations fs.FS
	// anySigner skips the check of who vouches for the signer, for a caller that has checked it.
	anySigner bool
	// anchorAfter replaces anchorDelay in tests.
	anchorAfter time.Duration
	// opener is whose slot opened the vault; see [Slot.openedBy].
	opener string
	// shareFor replaces maxShareTime in tests.
	shareFor time.Duration
	// accepted is the signer that ConfirmSigner accepted, while a vault is being opened.
	accepted *string
	// workFactor replaces identity.MinWorkFactor in tests, which would take minutes.
	workFactor int
}

// DefaultPath returns the path of the database in a home directory:
// .rbee/beehives.db.
func DefaultPath(home string) string { return filepath.Join(home, ".rbee", "beehives.db") }

func (c Config) wait() time.Duration {
	if c.Wait <= 0 {
		return 10 * time.Second
	}
	return c.Wait
}

func (c Config) log() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// now returns the time in whole milliseconds, as times are stored.
func (c Config) now() time.Time {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	return now().UTC().Truncate(time.Millisecond)
}

func (c Config) fs() durable.FS {
	if c.FS == nil {
		return durable.OS{}
	}
	return c.FS
}

// anchorDelay is how far the anchor may be behind.
const anchorDelay = time.Minute

func (c Config) anchorDelay() time.Duration {
	if c.anchorAfter == 0 {
		return anchorDelay
	}
	return c.anchorAfter
}

func (c Config) minWorkFactor() int {
	if c.workFactor == 0 {
		return identity.MinWorkFactor
	}
	return c.workFactor
}

func (c Config) via() string {
	if c.Via == "" {
		return filepath.Base(os.Args[0])
	}
	return c.Via
}

func (c Config) shareTime() time.Duration {
	if c.shareFor == 0 {
		return maxShareTime
	}
	return c.shareFor
}
