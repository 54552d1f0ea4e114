package backup

import (
	"context"
	"fmt"
	"io"
)

// The names of the archive's members. [layout] has their order.
const (
	memberSums       = "SHA256SUMS"
	memberSignature  = "SHA256SUMS.sig"
	memberManifest   = "manifest.json"
	memberSigners    = "signers.jsonl"
	memberReadme     = "README.txt"
	memberNodes      = "beehives.jsonl"
	memberSSHKeys    = "ssh_keys.jsonl"
	memberRotations  = "key_rotations.jsonl"
	memberHostKeys   = "host_keys.jsonl"
	memberKnownHosts = "known_hosts"
	memberTargets    = "backup_targets.jsonl"
	memberSettings   = "settings.jsonl"
	memberAuditLog   = "audit_log.jsonl"
	memberSlots      = "slots.jsonl"
)

// memberPEM names the nth private key, from 1, in the order of ssh_keys.jsonl.
func memberPEM(n int) string { return fmt.Sprintf("ssh_keys/%d.pem", n) }

// member is a file of the archive that SHA256SUMS lists.
type member struct {
	name string
	// content: the member counts for [Record.ContentHash]. The others differ
	// between two backups of the same registry.
	content bool
	// write writes the member.
	write func(*archiveWriter, context.Context, io.Writer) error
	// read reads the member. Its sum is compared afterwards: until then, what
	// was read may be forged.
	read func(*archiveReader, context.Context, io.Reader) error
	// verified is called after the member's sum was compared. Nil: nothing is
	// left to do.
	verified func(*archiveReader, context.Context) error
}

// layout returns the members that SHA256SUMS lists, in their order, for a vault
// with this many SSH keys. SHA256SUMS and its signature come first. The
// writer, the reader and the check of SHA256SUMS all use this one table.
func layout(keys int) []member {
	members := []member{
		{name: memberManifest, write: (*archiveWriter).writeManifest, read: (*archiveReader).readManifest, verified: (*archiveReader).verifySignature},
		{name: memberSigners, write: (*archiveWriter).writeSigners, read: (*archiveReader).readSigners, verified: (*archiveReader).trustSigner},
		{name: memberReadme, write: (*archiveWriter).writeReadme, read: (*archiveReader).skipReadme},
		{name: memberNodes, content: true, write: (*archiveWriter).writeNodes, read: (*archiveReader).readNodes, verified: (*archiveReader).checkJumps},
		{name: memberSSHKeys, content: true, write: (*archiveWriter).writeSSHKeys, read: (*archiveReader).readSSHKeys,
			verified: func(a *archiveReader, _ context.Context) error { return a.checkKeys(keys) }},
	}
	for i := range keys {
		members = append(members, member{name: memberPEM(i + 1), content: true,
			write: func(a *archiveWriter, ctx context.Context, w io.Writer) error { return a.writePrivateKey(ctx, w, i) },
			read:  func(a *archiveReader, ctx context.Context, r io.Reader) error { return a.readPrivateKey(ctx, r, i) },
		})
	}
	return append(members, []member{
		{name: memberRotations, content: true, write: (*archiveWriter).writeRotations, read: (*archiveReader).readRotations, verified: (*archiveReader).endMember},
		{name: memberHostKeys, content: true, write: (*archiveWriter).writeHostKeys, read: (*archiveReader).readHostKeys, verified: (*archiveReader).endMember},
		{name: memberKnownHosts, content: true, write: (*archiveWriter).writeKnownHosts, read: (*archiveReader).skipKnownHosts},
		{name: memberTargets, content: true, write: (*archiveWriter).writeTargets, read: (*archiveReader).readTargets, verified: (*archiveReader).endMember},
		{name: memberSettings, content: true, write: (*archiveWriter).writeSettings, read: (*archiveReader).readSettings, verified: (*archiveReader).endMember},
		{name: memberAuditLog, write: (*archiveWriter).writeAuditLog, read: (*archiveReader).readAuditLog},
		{name: memberSlots, content: true, write: (*archiveWriter).writeSlots, read: (*archiveReader).readSlots, verified: (*archiveReader).checkSlots},
	}...)
}

// tables says which member holds each table of the database; "" is a table that
// a backup leaves out on purpose.
var tables = map[string]string{
	"beehives":         memberNodes,
	"node_details":     memberNodes,
	"node_labels":      memberNodes,
	"ssh_keys":         memberSSHKeys,
	"beehive_ssh_keys": memberSSHKeys,
	"key_rotations":    memberRotations,
	"host_keys":        memberHostKeys,
	"backup_targets":   memberTargets,
	"settings":         memberSettings,
	"audit_log":        memberAuditLog,
	"slots":            memberSlots,
	"signers":          memberSigners,
	"vault_meta":       memberManifest, // without the signing key: a restored vault makes its own
	"node_changes":     "",             // for handles that are open
	// What was done with the backups of the old vault. A restored vault begins its own.
	"backups":           "",
	"backup_recipients": "",
	"backup_copies":     "",
	"backup_drills":     "",
}
