package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// MergeSet is what is taken from a backup into a vault in place.
type MergeSet struct {
	Entries []Entry // by name
	// Keys has the SSH keys that the entries and their rotations use, by fingerprint.
	Keys map[string]BackupKey
	// Whole says that the set is all of a backup: its keys come along even where no node
	// uses them.
	Whole bool
	// Removed says when a node, by name, or a key, by fingerprint, was removed from the
	// vault or renamed since the backup was made. Of a set that is Whole, such a node or
	// key is a conflict. A node that was asked for comes back.
	Removed map[string]string
}

// BackupKey is an SSH key in a backup.
type BackupKey struct {
	SSHKey  SSHKey
	Private []byte // PEM
}

// Preference says which side decides about a conflict.
type Preference string

// The preferences. Without one, a merge with a conflict is refused.
const (
	PreferNone   Preference = ""
	PreferBackup Preference = "backup" // the node becomes what it is in the backup
	PreferLive   Preference = "live"   // the node stays as it is
)

// MergeAction is what a merge does with a node or a key.
type MergeAction string

// The actions of a merge.
const (
	MergeAdd      MergeAction = "add"      // the vault does not have it
	MergeReplace  MergeAction = "replace"  // it becomes what it is in the backup
	MergeKeep     MergeAction = "keep"     // it differs, and stays as it is in the vault
	MergeSame     MergeAction = "same"     // both are equal
	MergeConflict MergeAction = "conflict" // it differs, and nothing was preferred
)

// Merged says what a merge does with a node, or with a key.
type Merged struct {
	Name        string // of the node; fingerprint of the key
	Action      MergeAction
	Differences []Difference // of a node that is in both
	Removed     string       // when it was removed from the vault since the backup; "": it was not
}

// MergeReport says what a merge does: nodes by name, and the keys that it adds, or that it
// leaves out because they were removed, by fingerprint.
type MergeReport struct {
	Nodes []Merged
	Keys  []Merged
}

// Count returns how many nodes and keys have the action.
func (r MergeReport) Count(action MergeAction) (nodes, keys int) {
	count := func(list []Merged) (n int) {
		for _, m := range list {
			if m.Action == action {
				n++
			}
		}
		return n
	}
	return count(r.Nodes), count(r.Keys)
}

// Changes reports whether the merge changes anything.
func (r MergeReport) Changes() bool {
	added, keys := r.Count(MergeAdd)
	replaced, _ := r.Count(MergeReplace)
	return added+keys+replaced > 0
}

// Merge adds the nodes of a backup to the vault, each with its SSH key, host keys, key
// rotation, note, labels and jump. A node that is there already and differs, in anything
// but its state, is a conflict. With PreferBackup it becomes what it is in the backup: pins
// that the backup does not have are removed, and its former key stays, unused. Its status
// and last contact stay too. Each change has its audit row.
//
// The report is complete even where the error is ErrConflict. Other errors: ErrInvalid for a
// node whose jump leads nowhere; ErrInUse for a node that would change while its key is
// being replaced. After an error the transaction must not be committed.
func Merge(ctx context.Context, tx *vault.Tx, set MergeSet, prefer Preference) (MergeReport, error) {
	m := newMerger(tx, set, prefer)
	if err := m.planNodes(ctx); err != nil {
		return MergeReport{}, err
	}
	if err := m.planKeys(ctx); err != nil {
		return MergeReport{}, err
	}
	if nodes, keys := m.report.Count(MergeConflict); nodes+keys > 0 {
		return m.report, fmt.Errorf("%w: %s", ErrConflict, m.conflicts())
	}
	if err := m.checkJumpsExist(ctx); err != nil {
		return m.report, err
	}
	if err := m.write(ctx); err != nil {
		return m.report, err
	}
	return m.report, nil
}

// merger is a running Merge.
type merger struct {
	MergeSet
	tx     *vault.Tx
	prefer Preference
	report MergeReport
	writes []mergeWrite
	wanted map[string]bool // fingerprints of the keys that the writes need
	keys   []string        // of wanted: those to be added, sorted
}

func newMerger(tx *vault.Tx, set MergeSet, prefer Preference) *merger {
	return &merger{MergeSet: set, tx: tx, prefer: prefer, wanted: map[string]bool{}}
}

// mergeWrite is a node to be written. It replaces old, if that has a name.
type mergeWrite struct{ entry, old Entry }

func (m *merger) planNodes(ctx context.Context) error {
	for _, e := range m.Entries {
		if err := m.planNode(ctx, e); err != nil {
			return fmt.Errorf("node %q: %w", e.Node.Name, err)
		}
	}
	return nil
}

func (m *merger) planNode(ctx context.Context, e Entry) error {
	old, err := selectEntry(ctx, m.tx, e.Node.Name)
	missing := errors.Is(err, ErrNotFound)
	if err != nil && !missing {
		return err
	}
	done := Merged{Name: e.Node.Name}
	if missing {
		done.Removed = m.Removed[e.Node.Name]
		done.Action = MergeAdd
		if done.Removed != "" && m.Whole {
			done.Action = m.decide(MergeAdd)
		}
	} else if done.Differences = e.Compare(old); len(done.Differences) == 0 {
		done.Action = MergeSame
	} else if done.Action = m.decide(MergeReplace); done.Action == MergeReplace && old.Rotation.Node != "" && keyDiffers(done.Differences) {
		return fmt.Errorf("%w: its SSH key is being replaced", ErrInUse)
	}
	m.report.Nodes = append(m.report.Nodes, done)
	if done.Action == MergeAdd || done.Action == MergeReplace {
		m.writes = append(m.writes, mergeWrite{e, old})
		for _, key := range []string{e.SSHKey, e.Rotation.Old, e.Rotation.New} {
			if key != "" {
				m.wanted[key] = true
			}
		}
	}
	return nil
}

// decide returns what happens with a conflict, if the backup's side is the action.
func (m *merger) decide(action MergeAction) MergeAction {
	switch m.prefer {
	case PreferBackup:
		return action
	case PreferLive:
		return MergeKeep
	}
	return MergeConflict
}

func keyDiffers(list []Difference) bool {
	return slices.ContainsFunc(list, func(d Difference) bool { return d.Field == "ssh_key" || d.Field == "key_rotation" })
}

// planKeys decides which keys are added: those that the written nodes need, and of a whole
// backup those that no node uses.
func (m *merger) planKeys(ctx context.Context) error {
	used := map[string]bool{} // by any node of the backup
	for _, e := range m.Entries {
		for _, key := range []string{e.SSHKey, e.Rotation.Old, e.Rotation.New} {
			used[key] = true
		}
	}
	for _, fingerprint := range slices.Sorted(maps.Keys(m.Keys)) {
		loose := m.Whole && !used[fingerprint]
		if !m.wanted[fingerprint] && !loose {
			continue
		}
		_, err := selectSealedSSHKey(ctx, m.tx, fingerprint)
		if err == nil {
			continue
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		done := Merged{Name: fingerprint, Action: MergeAdd, Removed: m.Removed[fingerprint]}
		if loose && done.Removed != "" {
			done.Action = m.decide(MergeAdd)
		}
		if done.Action == MergeAdd {
			m.keys = append(m.keys, fingerprint)
		}
		m.report.Keys = append(m.report.Keys, done)
	}
	return nil
}

// maxConflictsNamed is how many conflicts an error names.
const maxConflictsNamed = 10

func (m *merger) conflicts() string {
	var list []string
	for _, c := range slices.Concat(m.report.Nodes, m.report.Keys) {
		if c.Action != MergeConflict {
			continue
		}
		what := c.Removed
		if what == "" {
			var fields []string
			for _, d := range c.Differences {
				fields = append(fields, d.Field)
			}
			what = strings.Join(fields, ", ")
		}
		list = append(list, c.Name+" ("+what+")")
	}
	more := ""
	if n := len(list) - maxConflictsNamed; n > 0 {
		list, more = list[:maxConflictsNamed], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(list, ", ") + more
}

// checkJumpsExist sees that each written node is reached through a node that will be there.
func (m *merger) checkJumpsExist(ctx context.Context) error {
	written := map[string]bool{}
	for _, w := range m.writes {
		written[w.entry.Node.Name] = true
	}
	for _, w := range m.writes {
		jump := w.entry.Node.ProxyJump
		if jump == "" || written[jump] {
			continue
		}
		if exists, err := nodeExists(ctx, m.tx, jump); err != nil {
			return err
		} else if !exists {
			return &MissingJumpError{Node: w.entry.Node.Name, Jump: jump}
		}
	}
	return nil
}

// MissingJumpError says that a node of a backup is reached through a node that is neither in
// the vault nor among those that are restored. It is ErrInvalid.
type MissingJumpError struct{ Node, Jump string }

func (e *MissingJumpError) Error() string {
	return fmt.Sprintf("node %q is reached through %q, which the vault does not have", e.Node, e.Jump)
}

// Unwrap returns ErrInvalid.
func (e *MissingJumpError) Unwrap() error { return ErrInvalid }

// write writes the plan: keys, then nodes, then what refers to both.
func (m *merger) write(ctx context.Context) error {
	for _, fingerprint := range m.keys {
		k := m.Keys[fingerprint]
		k.SSHKey.Nodes = nil // the nodes that are written get it below; others keep theirs
		if err := InsertSSHKey(ctx, m.tx, k.SSHKey, k.Private); err != nil {
			return err
		}
		detail := strings.TrimSpace(k.SSHKey.Type + " " + k.SSHKey.Comment)
		if err := m.tx.Audit(ctx, vault.Event{Action: ActionAddSSHKey, Subject: fingerprint, Detail: detail}); err != nil {
			return err
		}
	}
	var jumped []string
	for _, w := range m.writes {
		if err := writeEntryNode(ctx, m.tx, w); err != nil {
			return fmt.Errorf("node %q: %w", w.entry.Node.Name, err)
		}
		jumped = append(jumped, changedJumps(w.old.Node, w.entry.Node)...)
	}
	if err := checkJumps(ctx, m.tx, "", jumped); err != nil {
		return err
	}
	for _, w := range m.writes {
		if err := writeEntryKeys(ctx, m.tx, w); err != nil {
			return fmt.Errorf("node %q: %w", w.entry.Node.Name, err)
		}
	}
	return nil
}

func writeEntryNode(ctx context.Context, tx *vault.Tx, w mergeWrite) error {
	n := w.entry.Node.normalized()
	if err := n.validate(); err != nil {
		return err
	}
	if w.old.Node.Name == "" {
		return createNode(ctx, tx, n)
	}
	n.Status, n.LastConnected = w.old.Node.Status, w.old.Node.LastConnected
	return replaceNode(ctx, tx, w.old.Node, n, ActionUpdateNode)
}

// writeEntryKeys gives a node the key, the host keys and the key rotation of the backup.
func writeEntryKeys(ctx context.Context, tx *vault.Tx, w mergeWrite) error {
	name, rotation := w.entry.Node.Name, w.entry.Rotation
	if w.entry.SSHKey != w.old.SSHKey {
		if err := moveNodeSSHKey(ctx, tx, name, w.old.SSHKey, w.entry.SSHKey); err != nil {
			return err
		}
	}
	if err := replaceHostKeys(ctx, tx, name, w.old.HostKeys, w.entry.HostKeys); err != nil {
		return err
	}
	if rotation.Node == "" || rotation == w.old.Rotation {
		return nil
	}
	if err := InsertKeyRotation(ctx, tx, rotation); err != nil {
		return err
	}
	if err := auditRotation(ctx, tx, rotation, "", rotation.Step); err != nil {
		return err
	}
	return checkRotatedKey(ctx, tx, rotation)
}

// replaceHostKeys pins other host keys for a node. Those that are in both lists stay as they
// are.
func replaceHostKeys(ctx context.Context, tx *vault.Tx, node string, old, keys []HostKey) error {
	in := func(list []HostKey, k HostKey) bool {
		return slices.ContainsFunc(list, func(other HostKey) bool { return other.PublicKey == k.PublicKey })
	}
	var gone, added []string
	for _, k := range old {
		if in(keys, k) {
			continue
		}
		if err := deleteHostKey(ctx, tx, k); err != nil {
			return err
		}
		gone = append(gone, k.Type+" "+vault.Fingerprint(k.PublicKey))
	}
	for _, k := range keys {
		if in(old, k) {
			continue
		}
		if err := InsertHostKeys(ctx, tx, k); err != nil {
			return err
		}
		added = append(added, k.Type+" "+vault.Fingerprint(k.PublicKey))
	}
	for _, row := range []struct {
		action vault.Action
		keys   []string
	}{{ActionForgetHostKey, gone}, {ActionTrustHostKey, added}} {
		if len(row.keys) == 0 {
			continue
		}
		if err := tx.Audit(ctx, vault.Event{Action: row.action, Subject: node, Detail: strings.Join(row.keys, "; ")}); err != nil {
			return err
		}
	}
	return nil
}

// CompareWith compares the nodes of a backup with the vault, and writes nothing. In the
// result, by name, MergeAdd stands for a node that only the backup has, MergeSame for one
// that is the same, MergeConflict for one that differs. Where the set is Whole, MergeKeep
// stands for a node that only the vault has.
func CompareWith(ctx context.Context, tx *vault.Tx, set MergeSet) ([]Merged, error) {
	whole := set.Whole
	set.Whole = false // a node that was removed since is no conflict here
	m := newMerger(tx, set, PreferNone)
	if err := m.planNodes(ctx); err != nil {
		return nil, err
	}
	list := m.report.Nodes
	if !whole {
		return list, nil
	}
	inBackup := map[string]bool{}
	for _, e := range set.Entries {
		inBackup[e.Node.Name] = true
	}
	for n, err := range EachNode(ctx, tx) {
		if err != nil {
			return nil, err
		}
		if !inBackup[n.Name] {
			list = append(list, Merged{Name: n.Name, Action: MergeKeep})
		}
	}
	slices.SortFunc(list, func(a, b Merged) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
