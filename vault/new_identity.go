package vault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// NewIdentity is an identity that was made for a slot, for somebody to keep: a recovery
// identity, or the credential of a service. The vault does not store it. It is handed out only
// this once.
type NewIdentity struct {
	Kind      SlotKind
	Identity  string // "AGE-SECRET-KEY-...": a secret
	Recipient string
	VaultID   string
	Signer    string // a line as in authorized_keys; this key signs the backups
	Created   time.Time
}

// newIdentity generates an identity of the class.
func newIdentity(class identity.Class) (NewIdentity, error) {
	text, recipient, err := identity.Generate(class)
	return NewIdentity{Identity: text, Recipient: recipient}, err
}

// vouchKey is the key with which the identity vouches for signers.
func (n NewIdentity) vouchKey() []byte {
	id, err := identity.ParseText(n.Identity)
	if err != nil {
		return nil
	}
	return vouchKey(id)
}

// File returns the identity as a file that `age -i` reads. The caller wipes it.
func (n NewIdentity) File() []byte {
	head := `# rbee-vault recovery identity: opens the vault and its backups.
# Keep it offline, and apart from the machine that holds the vault.
`
	if n.Kind == SlotCredential {
		head = `# rbee-vault credential: opens the vault for a service, and the vault's backups.
# Keep it readable to that service alone.
`
	}
	return fmt.Appendf(nil, `%s# vault id: %s
# created: %s
# recipient: %s
# signer: %s
# allowed_signers: %s
%s
`, head, n.VaultID, wire.FormatTime(n.Created), n.Recipient, Fingerprint(n.Signer), AllowedSigner(n.Signer), n.Identity)
}

// Sheet returns the recovery identity as a page to print, with the commands for a recovery.
// `age -i` reads it too. The caller wipes it.
func (n NewIdentity) Sheet() []byte {
	return fmt.Appendf(nil, `# RECOVERY SHEET of an rbee-vault
#
# Whoever holds this page opens the vault and every backup of it. Print it, keep
# it in a safe, and delete the file.
#
#   vault id    %s
#   created     %s
#   signer      %s
#   recipient   %s
#
# The recovery identity, in one line:

%s

# To open the vault where its keyring is gone (type the line above into a file of
# your own, mode 0600, in capitals, without a space):
#
#   rbee-vault status --identity recovery.txt \
#       --signer %s
#   rbee-vault slot add keyring --identity recovery.txt \
#       --signer %s
#
# To bring a backup back, on any machine:
#
#   rbee-vault restore BACKUP.tar.gz.age --identity recovery.txt \
#       --signer %s
#
# Without rbee-vault:
#
#   age -d -i recovery.txt BACKUP.tar.gz.age | tar xz
#   echo '%s' > allowed_signers
#   ssh-keygen -Y verify -f allowed_signers -I rbee-vault -n %s -s SHA256SUMS.sig < SHA256SUMS
#   sha256sum -c SHA256SUMS
`, n.VaultID, wire.FormatTime(n.Created), Fingerprint(n.Signer), n.Recipient, n.Identity, Fingerprint(n.Signer), Fingerprint(n.Signer), Fingerprint(n.Signer), AllowedSigner(n.Signer), SignatureNamespace)
}

// SignerSheet returns a page to keep with the recovery sheet. It names the current signer and
// holds no secret. `--signer FILE` reads it.
func SignerSheet(m Meta, slots []Slot) []byte {
	var recipients strings.Builder
	for _, s := range slots {
		if s.Durable() {
			fmt.Fprintf(&recipients, "#   recipient   %s\n", s.Recipient)
		}
	}
	return fmt.Appendf(nil, `# SIGNER SHEET of an rbee-vault, generation %d
#
# Who signs for the vault since its key was changed. Keep it with the recovery
# sheet, away from the machine: it replaces the signer that stands there. It holds
# no secret.
#
#   vault id    %s
#   created     %s
#   signer      %s
%s#   allowed_signers  %s
#
# To open the vault by an identity, and to bring a backup back:
#
#   rbee-vault status --identity recovery.txt \
#       --signer %s
#   rbee-vault restore BACKUP.tar.gz.age --identity recovery.txt \
#       --signer %s
`, m.Generation, m.VaultID, wire.FormatTime(m.KeyCreated), m.SignerFingerprint(), recipients.String(), AllowedSigner(m.Signer), m.SignerFingerprint(), m.SignerFingerprint())
}

// readRecovery reads the file of an earlier run. If its recipient is one of those given, the
// identity is used again: the operator may have copied it already. For any other file the error
// matches [ErrFileExists]; if there is no file, [fs.ErrNotExist].
func readRecovery(path string, recipients []string) (NewIdentity, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return NewIdentity{}, err
	}
	defer wipe(data)
	exists := fmt.Errorf("%w: %q", ErrFileExists, path)
	identities, err := identity.Parse(context.Background(), bytes.NewReader(data), identity.Options{})
	if err != nil || len(identities) != 1 {
		return NewIdentity{}, exists
	}
	r := NewIdentity{Identity: identity.Text(identities[0]), Recipient: identity.Describe(identities[0]).Recipient}
	for _, recipient := range recipients {
		if recipient == r.Recipient && strings.HasPrefix(r.Identity, "AGE-SECRET-KEY-") {
			return r, nil
		}
	}
	return NewIdentity{}, exists
}
