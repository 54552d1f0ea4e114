package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// Source is where a key came from.
type Source string

// The sources, in the order in which they are asked. The first that is present
// decides: when it fails, the next is not tried.
const (
	FromIdentity   Source = "identity"
	FromCredential Source = "credential"
	FromKeyring    Source = "keyring"
)

// credentialName is the name of the systemd credential that holds an identity.
const credentialName = "rbee-vault"

// unlock gets the key of the database that begins with id. The check value of
// the entry, where there is one, has been compared.
func unlock(ctx context.Context, cfg Config, id KeyID, file slotsFile) (*Key, Source, error) {
	key, source, err := ask(ctx, cfg, id, file)
	if err != nil {
		return nil, "", err
	}
	if key.id != id {
		defer key.wipe()
		return nil, "", fmt.Errorf("%w: the %s gave the key of id %s, the database is of id %s", ErrWrongKey, source, key.id, id)
	}
	if e := file.find(id); e != nil && e.Check != key.check() {
		defer key.wipe()
		return nil, "", fmt.Errorf("%w: the key from the %s is not the one that the slots file tells of", ErrWrongKey, source)
	}
	return key, source, nil
}

func ask(ctx context.Context, cfg Config, id KeyID, file slotsFile) (*Key, Source, error) {
	e := file.find(id)
	identities, source := cfg.Identities, FromIdentity
	if len(identities) == 0 && cfg.CredentialsDir != "" {
		var err error
		if identities, err = readCredential(cfg.CredentialsDir); err != nil {
			return nil, "", err
		}
		source = FromCredential
	}
	if len(identities) > 0 {
		if e == nil {
			return nil, "", noEntry(id, file, source)
		}
		key, err := unwrapAny(e.Slots, identities)
		return key, source, err
	}
	if cfg.Keyring == nil || (e != nil && !e.Keyring) {
		return nil, "", fmt.Errorf("%w: %s", ErrNoWayIn, waysIn(e))
	}
	value, err := cfg.Keyring.Get(ctx, id.String())
	switch {
	case errors.Is(err, keyring.ErrNotFound) && e == nil && len(file.entries) > 0:
		return nil, "", noEntry(id, file, FromKeyring)
	case errors.Is(err, keyring.ErrNotFound):
		return nil, "", fmt.Errorf("%w: the keyring has no key of id %s", ErrWrongKey, id)
	case err != nil:
		return nil, "", err
	}
	line := []byte(value)
	defer wipe(line)
	key, err := parseKeyLine(line)
	if err != nil {
		return nil, "", fmt.Errorf("%w: the keyring's item of id %s does not hold its key: %w", ErrWrongKey, id, err)
	}
	return key, FromKeyring, nil
}

// noEntry explains a key id that the slots file does not know.
func noEntry(id KeyID, file slotsFile, source Source) error {
	switch {
	case !file.present():
		return fmt.Errorf("%w: the slots file is gone, and through it alone an %s opens a vault", ErrNoWayIn, source)
	case file.err != nil:
		return fmt.Errorf("%w: the slots file is unreadable, and through it alone an %s opens a vault: %w", ErrNoWayIn, source, file.err)
	case len(file.entries) == 0:
		return fmt.Errorf("%w: the slots file is empty, and through it alone an %s opens a vault", ErrNoWayIn, source)
	}
	return fmt.Errorf("%w: the database begins with %s, the slots file tells of %s: it is another vault's database, an older copy, or its first bytes are damaged", ErrUnknownKeyID, id, file.entries[0].KeyID)
}

// waysIn says how a vault can be opened when no source was at hand.
func waysIn(e *entry) string {
	if e == nil {
		return "no identity is given, and there is no keyring"
	}
	kinds := map[SlotKind]int{}
	for _, s := range e.Slots {
		kinds[s.Kind]++
	}
	ways := []string{}
	for _, kind := range []SlotKind{SlotRecovery, SlotRecipient, SlotPassphrase, SlotCredential} {
		if n := kinds[kind]; n > 0 {
			ways = append(ways, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if e.Keyring {
		ways = append(ways, "the OS keyring")
	}
	return "no identity is given; this vault opens by: " + strings.Join(ways, ", ")
}

// maxIdentityFile caps an identity file.
const maxIdentityFile = 64 << 10

// ParseIdentities reads age identities ("AGE-SECRET-KEY-...", with comment
// lines) or one unprotected SSH private key. The error matches [ErrInvalid] and
// says nothing of the content.
func ParseIdentities(r io.Reader) ([]age.Identity, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxIdentityFile+1))
	defer wipe(data)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	text := strings.TrimSpace(string(data))
	switch {
	case len(data) > maxIdentityFile:
		return nil, fmt.Errorf("%w: an identity file has at most %d bytes", ErrInvalid, maxIdentityFile)
	case text == "":
		return nil, fmt.Errorf("%w: the identity file is empty", ErrInvalid)
	case strings.HasPrefix(text, "-----BEGIN AGE ENCRYPTED FILE-----"), strings.HasPrefix(text, "age-encryption.org/"):
		return nil, fmt.Errorf("%w: the identity file is itself encrypted: decrypt it first (age -d FILE | rbee-vault --identity - ...)", ErrInvalid)
	case strings.HasPrefix(text, "-----BEGIN"):
		id, err := agessh.ParseIdentity(data)
		if err != nil {
			return nil, fmt.Errorf("%w: not an unprotected ssh-ed25519 or ssh-rsa private key", ErrInvalid)
		}
		return []age.Identity{id}, nil
	}
	// age's own parser echoes the line that it cannot parse.
	identities, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%w: not an age identity file", ErrInvalid)
	}
	return identities, nil
}

// readCredential reads the service's credential, or returns nothing when
// systemd handed over none. Its mode is not checked: access to the directory is
// by ACL, and the mode bits show the ACL's mask.
func readCredential(dir string) ([]age.Identity, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: the credentials directory %q is not absolute", ErrInvalid, dir)
	}
	f, err := os.Open(filepath.Join(dir, credentialName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%w: read credential: %w", ErrNoWayIn, err)
	}
	defer f.Close()
	identities, err := ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("%w: credential %q: %w", ErrWrongKey, credentialName, err)
	}
	return identities, nil
}
