package rootkey

import (
	"context"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// Wrap encrypts the key line to a recipient, until ctx ends. The result is armored age. An error
// of a plugin matches [identity.ErrPlugin]. Wrap works on a copy of the key, because a plugin that
// hangs is abandoned while it uses it.
func (k *Key) Wrap(ctx context.Context, recipient string, ui *plugin.ClientUI) (string, error) {
	key := *k
	return identity.Await(ctx, func() (string, error) {
		defer key.Wipe()
		r, err := identity.ParseRecipient(recipient, ui)
		if err != nil {
			return "", err
		}
		line := key.Line()
		defer clear(line)
		return identity.Encrypt(line, r)
	})
}

// Unwrap decrypts what Wrap returned. If no identity belongs to it, the error is an
// [*age.NoIdentityMatchError].
func Unwrap(wrapped string, identities ...age.Identity) (*Key, error) {
	line, err := identity.Decrypt(wrapped, lineLen, identities...)
	if err != nil {
		return nil, err
	}
	defer clear(line)
	return ParseLine(line)
}
