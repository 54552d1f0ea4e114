package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Part is what was read from a backup to go into a vault in place, or to be compared with
// it: nodes with all that belongs to them. The whole backup was verified. A Part is in
// memory, private keys included: call Wipe.
type Part struct {
	Manifest Manifest
	Sums     string // SHA-256 of its SHA256SUMS, in hex
	set      registry.MergeSet
	log      [][32]byte // the hashes of its audit log, from row 1 on
}

// PartOptions says which part of a backup is read.
type PartOptions struct {
	ReadOptions
	// Nodes are names and globs. None: all nodes, and the SSH keys that no node uses. A
	// pattern that matches no node of the backup is [registry.ErrNotFound].
	Nodes []string
}

// ReadPart reads and verifies a whole backup, and returns a part of it. It writes nothing.
// Errors: those of [Verify]; [registry.ErrNotFound].
func ReadPart(ctx context.Context, r io.Reader, opts PartOptions) (*Part, error) {
	selector, err := registry.ParseSelector(opts.Nodes, "")
	if err != nil {
		return nil, err
	}
	s := &partSink{keys: map[string]registry.BackupKey{}, rotations: map[string]registry.KeyRotation{}, hostKeys: map[string][]registry.HostKey{}}
	trust := opts.Trust
	if trust == nil {
		trust = TrustSigners()
	}
	var sums string
	opts.Trust = func(ctx context.Context, c Claim) error {
		sums = c.SumsSHA256
		return trust(ctx, c)
	}
	m, err := read(ctx, r, opts.ReadOptions, nil, s)
	if err != nil {
		s.wipe()
		return nil, fmt.Errorf("read backup: %w", err)
	}
	set, err := s.choose(selector)
	if err != nil {
		s.wipe()
		return nil, fmt.Errorf("backup %d: %w", m.Sequence, err)
	}
	set.Whole = len(opts.Nodes) == 0
	return &Part{Manifest: m, Sums: sums, set: set, log: s.log}, nil
}

// Wipe overwrites the private keys, best effort.
func (p *Part) Wipe() { wipeKeys(p.set.Keys) }

func wipeKeys(keys map[string]registry.BackupKey) {
	for _, k := range keys {
		clear(k.Private)
	}
}

// partSink is the sink of ReadPart. It keeps everything until the backup is verified to its
// end: a rotation, which follows the keys, may need any of them.
type partSink struct {
	discard
	nodes     []registry.Node
	keys      map[string]registry.BackupKey // by fingerprint
	rotations map[string]registry.KeyRotation
	hostKeys  map[string][]registry.HostKey
	log       [][32]byte
}

var _ sink = (*partSink)(nil)

func (s *partSink) wipe() { wipeKeys(s.keys) }

func (s *partSink) node(ctx context.Context, n registry.Node) error {
	s.nodes = append(s.nodes, n)
	return s.discard.node(ctx, n)
}

func (s *partSink) sshKey(ctx context.Context, k registry.SSHKey, private []byte) error {
	s.keys[k.Fingerprint] = registry.BackupKey{SSHKey: k, Private: slices.Clone(private)}
	return s.discard.sshKey(ctx, k, private)
}

func (s *partSink) keyRotation(ctx context.Context, k registry.KeyRotation) error {
	s.rotations[k.Node] = k
	return s.discard.keyRotation(ctx, k)
}

func (s *partSink) hostKey(ctx context.Context, k registry.HostKey) error {
	s.hostKeys[k.Node] = append(s.hostKeys[k.Node], k)
	return s.discard.hostKey(ctx, k)
}

func (s *partSink) auditRow(_ context.Context, r vault.AuditRow) error {
	s.log = append(s.log, r.Hash)
	return nil
}

// choose returns the selected nodes with what belongs to them. It wipes the keys that none
// of them uses, unless all nodes are selected.
func (s *partSink) choose(selector registry.Selector) (registry.MergeSet, error) {
	nodes, err := selector.Select(s.nodes, time.Time{})
	if err != nil {
		return registry.MergeSet{}, err
	}
	uses := map[string]string{} // the fingerprint of each node's key
	for _, k := range s.keys {
		for _, name := range k.SSHKey.Nodes {
			if uses[name] != "" {
				return registry.MergeSet{}, fmt.Errorf("%w: node %q uses two SSH keys", ErrDamaged, name)
			}
			uses[name] = k.SSHKey.Fingerprint
		}
	}
	set := registry.MergeSet{Keys: map[string]registry.BackupKey{}}
	for _, n := range nodes {
		e := registry.Entry{Node: n, SSHKey: uses[n.Name], HostKeys: s.hostKeys[n.Name], Rotation: s.rotations[n.Name]}
		for _, key := range []string{e.SSHKey, e.Rotation.Old, e.Rotation.New} {
			if key == "" {
				continue
			}
			if _, ok := s.keys[key]; !ok {
				return registry.MergeSet{}, fmt.Errorf("%w: it does not hold the SSH key %s of node %q", ErrDamaged, key, n.Name)
			}
			set.Keys[key] = s.keys[key]
		}
		set.Entries = append(set.Entries, e)
	}
	for fingerprint, k := range s.keys {
		if _, ok := set.Keys[fingerprint]; !ok && len(nodes) == len(s.nodes) {
			set.Keys[fingerprint] = k
		} else if !ok {
			clear(k.Private)
		}
	}
	return set, nil
}

// ActionMerge is the audit log's action of a part of a backup that was restored into the
// vault. It follows the rows of what was changed. Its subject is the backup, its detail the
// vault and the counts.
const ActionMerge vault.UrgentAction = "backup.merge"

// MergeOptions says how a part of a backup goes into a vault.
type MergeOptions struct {
	Prefer registry.Preference
	// DryRun does everything and then rolls it back.
	DryRun bool
	// Shown is the report of a dry run. If the merge would do anything else by now, nothing
	// is changed, and the error is [vault.ErrLocked]. Nil: anything goes.
	Shown *registry.MergeReport
}

var errRolledBack = errors.New("rolled back")

// Merge writes the part into a vault, in one transaction. Where nothing differs, it writes
// nothing. The backup's targets, slots and audit log are not used. The report is complete
// even where the error is [registry.ErrConflict]. Other errors: those of [registry.Merge]
// and of [vault.Vault.Update].
func (p *Part) Merge(ctx context.Context, v *vault.Vault, opts MergeOptions) (registry.MergeReport, error) {
	var report registry.MergeReport
	err := v.Update(ctx, func(tx *vault.Tx) (err error) {
		if report, err = p.merge(ctx, tx, opts.Prefer); err != nil {
			return err
		}
		if opts.Shown != nil && !sameReport(*opts.Shown, report) {
			return fmt.Errorf("%w: another process changed the vault meanwhile: try again", vault.ErrLocked)
		}
		if opts.DryRun || !report.Changes() {
			return errRolledBack
		}
		return nil
	})
	if err != nil && !errors.Is(err, errRolledBack) {
		return report, fmt.Errorf("restore a part of backup %d: %w", p.Manifest.Sequence, err)
	}
	return report, nil
}

func sameReport(a, b registry.MergeReport) bool {
	same := func(a, b registry.Merged) bool {
		return a.Name == b.Name && a.Action == b.Action && a.Removed == b.Removed && slices.Equal(a.Differences, b.Differences)
	}
	return slices.EqualFunc(a.Nodes, b.Nodes, same) && slices.EqualFunc(a.Keys, b.Keys, same)
}

func (p *Part) merge(ctx context.Context, tx *vault.Tx, prefer registry.Preference) (registry.MergeReport, error) {
	set, err := p.since(ctx, tx)
	if err != nil {
		return registry.MergeReport{}, err
	}
	report, err := registry.Merge(ctx, tx, set, prefer)
	if err != nil || !report.Changes() {
		return report, err
	}
	added, keys := report.Count(registry.MergeAdd)
	replaced, _ := report.Count(registry.MergeReplace)
	return report, tx.Audit(ctx, vault.Event{
		Action:  ActionMerge,
		Subject: fmt.Sprint(p.Manifest.Sequence),
		Detail:  fmt.Sprintf("of vault %s, %s; nodes added %d; replaced %d; keys added %d; SHA256SUMS %s", p.Manifest.VaultID, p.Manifest.Created, added, replaced, keys, p.Sums),
	})
}

// Compare compares the part with a vault; see [registry.CompareWith].
func (p *Part) Compare(ctx context.Context, v *vault.Vault) ([]registry.Merged, error) {
	var list []registry.Merged
	err := v.View(ctx, func(tx *vault.Tx) error {
		set, err := p.since(ctx, tx)
		if err == nil {
			list, err = registry.CompareWith(ctx, tx, set)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("compare with backup %d: %w", p.Manifest.Sequence, err)
	}
	return list, nil
}

// since returns the set, with what the vault's log says was removed since the backup. A
// vault whose log has nothing in common with the backup's says nothing.
func (p *Part) since(ctx context.Context, tx *vault.Tx) (registry.MergeSet, error) {
	set := p.set
	common, err := CommonRows(ctx, tx, p.log)
	if err != nil || common == 0 {
		return set, err
	}
	set.Removed = map[string]string{}
	for row, err := range tx.AuditRows(ctx, common+1) {
		if err != nil {
			return set, fmt.Errorf("read audit log: %w", err)
		}
		what := "removed"
		switch row.Action {
		case string(registry.ActionRemoveNode), string(registry.ActionRemoveSSHKey):
		case string(registry.ActionRenameNode):
			what = "renamed (" + strings.TrimSpace(row.Detail) + ")"
		default:
			continue
		}
		set.Removed[row.Subject] = fmt.Sprintf("%s %s by %s", what, row.At.UTC().Format(time.RFC3339), row.Actor)
	}
	return set, nil
}

// CommonRows returns how many rows at its beginning a vault's audit log has in common with
// another log, of which the rows' hashes are given, from row 1 on. Both chains must be good:
// then the rows before an equal row are equal too.
func CommonRows(ctx context.Context, tx *vault.Tx, log [][32]byte) (int64, error) {
	head, err := tx.AuditHead(ctx)
	if err != nil {
		return 0, err
	}
	low, high := int64(0), min(head.Seq, int64(len(log))) // low rows are equal, high may be
	for low < high {
		mid := low + (high-low+1)/2
		same := false
		for row, err := range tx.AuditRows(ctx, mid) {
			if err != nil {
				return 0, fmt.Errorf("read audit log: %w", err)
			}
			same = row.Seq == mid && row.Hash == log[mid-1]
			break
		}
		if same {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low, nil
}
