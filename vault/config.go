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

// Keyring is what the vault needs of an OS keyring; [keyring.Keyring] has it.
// Get returns [keyring.ErrNotFound] for an absent item, GetAll "" for each; Set has read the item
// back when it returns nil; Delete has seen it gone.
type Keyring interface {
	Get(ctx context.Context, account string) (string, error)
	GetAll(ctx context.Context, accounts ...string) ([]string, error)
	Set(ctx context.Context, account, value string) error
	Delete(ctx context.Context, account string) error
}

// Config says where a vault is and how it may be opened. The zero value of
// each field but Path is usable.
type Config struct {
	// Path of the database. Required; see [DefaultPath].
	Path string

	// Identities are tried on the slots; see [identity.Parse]. When there are
	// any, no other source of the key is asked.
	Identities []age.Identity
	// Passphrase asks for the passphrase of a passphrase slot, last of all
	// sources. Nil: there is no such way in.
	Passphrase identity.PassphraseFunc
	// ByPassphrase has Passphrase asked before the credential and the keyring.
	ByPassphrase bool
	// Plugins is how an age plugin, of a recipient or an identity, talks to a
	// person. Nil: it cannot.
	Plugins *plugin.ClientUI
	// CredentialsDir is where systemd puts a service's credentials
	// ($CREDENTIALS_DIRECTORY). A file "rbee-vault" in it is an identity, and is
	// asked before the keyring. Empty: none.
	CredentialsDir string
	// Keyring is asked after them. Nil: there is none.
	Keyring Keyring

	// VaultID is the id of the vault that must be at Path; another one gives
	// [ErrOtherVault]. Empty: any.
	VaultID string
	// Signer is the fingerprint of the vault's signer, "SHA256:...", from the
	// operator's sheet. Empty: see ConfirmSigner.
	Signer string
	// AcceptSuccessor takes a certified successor of Signer too.
	AcceptSuccessor bool
	// ConfirmSigner asks the operator whether to open a vault by an identity where
	// nothing else vouches for its signer. An error refuses. Nil: [ErrUnvouched].
	ConfirmSigner func(context.Context, Unvouched) error

	// Wait is how long to wait for a lock that another process holds, in all
	// the places where one is needed. 0: 10 s.
	Wait time.Duration
	// AllowNetworkFS makes and opens a vault on a network file system, or one that a
	// program serves (FUSE). No two machines may ever have it open at once: their
	// locks may not know of each other, and rows are lost.
	AllowNetworkFS bool
	// AcceptRollback opens a database that is older than its slots file, which is
	// copied aside, or than the keyring's anchor, which is written anew. That is
	// audited.
	AcceptRollback bool

	// Actor and Via stand in the audit log: who, and by which program. Empty:
	// the OS user, and the program's file name. A context from [WithActor]
	// overrides them.
	Actor, Via string

	// Logger receives what was healed, swept or left behind. Nil: discarded.
	Logger *slog.Logger
	// Now is the clock. Nil: [time.Now].
	Now func() time.Time

	// FS is the file system for everything but SQLite's own files. Nil: the
	// real one.
	FS durable.FS
	// networkFS replaces durable.NetworkFS; for tests, which have none to mount.
	networkFS func(dir string) (string, error)
	// migrations replaces the embedded schema migrations; for tests.
	migrations fs.FS
	// known opens the vault in place of all sources, and anySigner leaves out who
	// vouches for it: for who has seen to both before.
	known     *unlocked
	anySigner bool
	// anchorAfter replaces anchorDelay; for tests.
	anchorAfter time.Duration
	// accepted is the signer that ConfirmSigner took, while a vault is being opened.
	accepted *string
	// workFactor replaces identity.MinWorkFactor; for tests, which would take minutes.
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

// now is in whole milliseconds, as times are stored.
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
