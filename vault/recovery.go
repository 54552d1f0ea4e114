package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Recovery is the identity made for a new vault, for the operator to keep. The
// vault does not store it: this is the only time it is handed out.
type Recovery struct {
	Identity  string // "AGE-SECRET-KEY-...": a secret
	Recipient string
	VaultID   string
	Signer    string // public key line of the key that signs the backups
	Created   time.Time
}

// newRecovery makes an identity of the class.
func newRecovery(class Class) (Recovery, error) {
	if class == PostQuantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return Recovery{}, err
		}
		return Recovery{Identity: id.String(), Recipient: id.Recipient().String()}, nil
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return Recovery{}, err
	}
	return Recovery{Identity: id.String(), Recipient: id.Recipient().String()}, nil
}

// File is the recovery identity as a file that `age -i` takes. The caller wipes
// it.
func (r Recovery) File() []byte {
	return fmt.Appendf(nil, `# rbee-vault recovery identity: opens the vault and its backups.
# Keep it offline, and apart from the machine that holds the vault.
# vault id: %s
# created: %s
# recipient: %s
# signer: %s
# allowed_signers: %s
%s
`, r.VaultID, FormatTime(r.Created), r.Recipient, Fingerprint(r.Signer), AllowedSigner(r.Signer), r.Identity)
}

// readRecovery returns the identity of an earlier run's file when its recipient
// is among those given: the operator may have copied it already, so it is used
// again. The error matches [ErrFileExists] for any other file, and [fs.ErrNotExist]
// for none.
func readRecovery(path string, recipients []string) (Recovery, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Recovery{}, err
	}
	defer wipe(data)
	exists := fmt.Errorf("%w: %q", ErrFileExists, path)
	identities, err := ParseIdentities(bytes.NewReader(data))
	if err != nil || len(identities) != 1 {
		return Recovery{}, exists
	}
	var r Recovery
	switch id := identities[0].(type) {
	case *age.X25519Identity:
		r = Recovery{Identity: id.String(), Recipient: id.Recipient().String()}
	case *age.HybridIdentity:
		r = Recovery{Identity: id.String(), Recipient: id.Recipient().String()}
	}
	for _, recipient := range recipients {
		if recipient == r.Recipient && strings.HasPrefix(r.Identity, "AGE-SECRET-KEY-") {
			return r, nil
		}
	}
	return Recovery{}, exists
}

// handOver gives the recovery identity away: into a new file, which an
// interrupted run may have left and is then replaced, or to a function that
// shows it.
func handOver(ctx context.Context, fsys durable.FS, r Recovery, file string, again bool, show func(context.Context, Recovery) error) error {
	if file == "" {
		return show(ctx, r)
	}
	content := r.File()
	defer wipe(content)
	// A killed run may have left a part, with an identity in it.
	if err := durable.RemoveParts(fsys, file); err != nil {
		return fmt.Errorf("remove what an interrupted run left of %q: %w", file, err)
	}
	put := durable.Create
	if again {
		put = durable.Replace
	}
	if err := put(fsys, file, content); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %q", ErrFileExists, file)
	} else if err != nil {
		return fmt.Errorf("write recovery identity: %w", err)
	}
	return nil
}

// takeBack removes the file of a vault that did not come to be, also as an
// interrupted run wrote it: once no slot tells of its identity, a rerun would
// take it for another's.
func takeBack(fsys durable.FS, file string, r Recovery) {
	if _, err := readRecovery(file, []string{r.Recipient}); err == nil {
		fsys.Remove(file)
	}
}
