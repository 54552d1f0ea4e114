package backup

import (
	"strconv"
	"strings"
)

// readme is the text of README.txt. It explains the archive to someone who has
// only stock tools.
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
    beehives.jsonl    one machine a line, with its labels, its note and the machine
                      that it is reached through
    ssh_keys.jsonl    one key a line: fingerprint, public key, machines that use
                      it; the nth line's private key is ssh_keys/<n>.pem
    key_rotations.jsonl  machines whose key was being replaced: while "pending"
                      they take the old key, behind that the new one
    host_keys.jsonl   one pinned host key a line; known_hosts: for OpenSSH
    backup_targets.jsonl  where backups are written, with the credentials
    settings.jsonl    defaults of the commands
    audit_log.jsonl   who changed what, each line chained to the one before
    slots.jsonl       who could open the vault, by public key

Back into a vault: rbee-vault restore FILE.tar.gz.age --identity recovery.txt
`)
}
