package backup

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// The members of the archive, in their order. Keys stand between
// memberSSHKeys and memberHostKeys.
const (
	memberSums       = "SHA256SUMS"
	memberSignature  = "SHA256SUMS.sig"
	memberManifest   = "manifest.json"
	memberSigners    = "signers.jsonl"
	memberReadme     = "README.txt"
	memberNodes      = "beehives.jsonl"
	memberSSHKeys    = "ssh_keys.jsonl"
	memberHostKeys   = "host_keys.jsonl"
	memberKnownHosts = "known_hosts"
	memberAuditLog   = "audit_log.jsonl"
	memberSlots      = "slots.jsonl"
)

// memberPEM names the nth private key, from 1, in the order of ssh_keys.jsonl.
func memberPEM(n int) string { return fmt.Sprintf("ssh_keys/%d.pem", n) }

// tables says where each table of the database goes: a member, or "" where it
// is left out on purpose.
var tables = map[string]string{
	"beehives":         memberNodes,
	"ssh_keys":         memberSSHKeys,
	"beehive_ssh_keys": memberSSHKeys,
	"host_keys":        memberHostKeys,
	"audit_log":        memberAuditLog,
	"slots":            memberSlots,
	"signers":          memberSigners,
	"vault_meta":       memberManifest, // but for the signing key: a restored vault makes its own
	"backups":          "",             // speaks of files beside the old vault
}

// member is a file of the archive whose content a function streams. It may be
// called more than once in one transaction, and streams the same bytes.
type member struct {
	name  string
	write func(ctx context.Context, tx *vault.Tx, w io.Writer) error
}

// contentMembers are the members that hold the vault's content, given the
// fingerprints of its SSH keys in their order.
func contentMembers(fingerprints []string) []member {
	members := []member{
		{memberNodes, writeNodes},
		{memberSSHKeys, writeSSHKeys},
	}
	for i, fingerprint := range fingerprints {
		members = append(members, member{memberPEM(i + 1), func(ctx context.Context, tx *vault.Tx, w io.Writer) error {
			private, err := registry.PrivateKeyPEM(ctx, tx, fingerprint)
			if err != nil {
				return err
			}
			defer clear(private)
			_, err = w.Write(private)
			return err
		}})
	}
	return append(members,
		member{memberHostKeys, writeHostKeys},
		member{memberKnownHosts, registry.WriteKnownHosts},
		member{memberAuditLog, writeAuditLog},
		member{memberSlots, writeSlots},
	)
}

func writeNodes(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	for n, err := range registry.EachNode(ctx, tx) {
		if err := writeLine(w, n, err); err != nil {
			return err
		}
	}
	return nil
}

func writeSSHKeys(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	for k, err := range registry.EachSSHKey(ctx, tx) {
		if err := writeLine(w, k, err); err != nil {
			return err
		}
	}
	return nil
}

func writeHostKeys(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	for k, err := range registry.EachHostKey(ctx, tx) {
		if err := writeLine(w, k, err); err != nil {
			return err
		}
	}
	return nil
}

func writeAuditLog(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	for r, err := range tx.AuditRows(ctx, 1) {
		if err := writeLine(w, r, err); err != nil {
			return err
		}
	}
	return nil
}

func writeSigners(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	signers, err := tx.Signers(ctx)
	if err != nil {
		return err
	}
	for _, s := range signers {
		if err := writeLine(w, s, nil); err != nil {
			return err
		}
	}
	return nil
}

func writeSlots(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	_, slots, err := tx.CheckedSlots(ctx)
	if err != nil {
		return err
	}
	for _, s := range slots {
		if err := writeLine(w, s, nil); err != nil {
			return err
		}
	}
	return nil
}

// writeLine writes a value as a line of JSON, unless reading it failed.
func writeLine(w io.Writer, v any, err error) error {
	if err != nil {
		return err
	}
	line, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readme explains the archive to whoever has nothing but stock tools.
func readme(m Manifest) string {
	return strings.NewReplacer(
		"VAULT", m.VaultID,
		"SEQ", strconv.FormatInt(m.Sequence, 10),
		"CREATED", m.Created,
	).Replace(`Backup of an rbee-vault: a registry of machines and the SSH keys to them.
Vault VAULT, backup SEQ, CREATED.

ssh_keys/*.pem are private keys in clear. Unpack on a machine that you trust,
in a directory that only you can read, and remove it when you are done.

Unpack and check, with age, tar and coreutils:

    umask 077; mkdir restored; cd restored
    age -d -i recovery.txt FILE.tar.gz.age | tar xz
    sha256sum -c SHA256SUMS

Check who made it, with OpenSSH. The line for allowed_signers stands in the
recovery file, a comment line, and not here: a forger would write their own.

    ssh-keygen -Y verify -f allowed_signers -I rbee-vault \
        -n rbee-vault-backup -s SHA256SUMS.sig < SHA256SUMS

What is what:

    manifest.json     which vault, when, how many of each, the audit log's head
    signers.jsonl     the keys that signed for the vault, each certified by the one
                      before: the newest made this file's signature
    beehives.jsonl    one machine a line
    ssh_keys.jsonl    one key a line: fingerprint, public key, machines that use
                      it; the nth line's private key is ssh_keys/<n>.pem
    host_keys.jsonl   one pinned host key a line; known_hosts: for OpenSSH
    audit_log.jsonl   who changed what, each line chained to the one before
    slots.jsonl       who could open the vault, by public key

Back into a vault: rbee-vault restore FILE.tar.gz.age --identity recovery.txt
`)
}
