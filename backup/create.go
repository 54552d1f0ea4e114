package backup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ActionCreate is the audit log's action of a backup that is about to be written. Its
// subject is the sequence, its detail the places and the extra recipients.
const ActionCreate vault.UrgentAction = "backup.create"

// CreateOptions says where a backup goes. Exactly one of Path, Dir, Writer and
// Targets must be set.
type CreateOptions struct {
	// Path is the new file's name; its directory must exist.
	Path string
	// Dir is the directory for a file with the default name. It is made with mode
	// 0700 where it is missing.
	Dir string
	// Writer receives the file instead.
	Writer io.Writer
	// Targets are the names of targets, which all receive the file.
	Targets []string

	// Recipients can open the backup too, besides the vault's own recipients. They
	// must be of the vault's class. See [identity.ParseRecipient].
	Recipients []string
	// Program is the name and version of the program, for the manifest.
	Program string
	// Progress is called after each member with the bytes archived so far and in
	// all. Nil: no reports.
	Progress func(done, total int64)
}

// Created describes a new backup.
type Created struct {
	Record
	Manifest  Manifest
	Unchanged bool // the configuration is the same as in the last completed backup
}

// Create writes a backup of one moment of the vault. A file appears whole under its
// name or not at all, and never replaces another file. Memory use does not grow with
// the size of the members.
//
// The order: record the next sequence and the copies' names; write the file, without
// a name, beside the database; copy it to each place; record what became of each copy.
//
// Errors: [ErrExists]; [ErrPartial], if some of several targets have it, and
// [ErrNotRecorded], if it is in place: after both, Created is valid; [vault.ErrInvalid]
// for a recipient, for an unknown target, or for a Path that is reserved for a vault's
// own files; those of [vault.Vault.Update].
func Create(ctx context.Context, v *vault.Vault, opts CreateOptions) (Created, error) {
	if err := opts.prepare(v.Path()); err != nil {
		return Created{}, err
	}
	if err := opts.checkRecipients(ctx, v); err != nil {
		return Created{}, err
	}
	n, err := opts.begin(ctx, v)
	if err != nil {
		return Created{}, fmt.Errorf("begin backup: %w", err)
	}
	file, err := unnamedFile(filepath.Dir(v.Path()))
	if err != nil {
		return Created{}, err
	}
	defer file.Close()
	m, err := n.write(ctx, v, opts, file)
	if err != nil {
		return Created{}, fmt.Errorf("write backup: %w", err)
	}
	failed := n.copyOut(ctx, file)
	// What is in place is recorded even if ctx was cancelled.
	unchanged, err := n.record(context.WithoutCancel(ctx), v)
	switch {
	case n.written() == 0:
		return Created{}, fmt.Errorf("write backup: %w", failed)
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrNotRecorded, err)
	case failed != nil:
		err = fmt.Errorf("%w: %w", ErrPartial, failed)
	}
	return Created{Record: n.Record, Manifest: m, Unchanged: unchanged}, err
}

// newBackup is a backup that is being made.
type newBackup struct {
	Record
	stores []Store // of each copy
}

// begin records that a backup begins, and the names of its copies. The transaction
// ends before a file exists, so no two files ever have the same sequence.
func (o CreateOptions) begin(ctx context.Context, v *vault.Vault) (n *newBackup, err error) {
	err = v.Update(ctx, func(tx *vault.Tx) (err error) {
		n = &newBackup{}
		if n.Sequence, n.Created, err = insertBackup(ctx, tx); err != nil {
			return err
		}
		if err := o.choosePlaces(ctx, tx, n); err != nil {
			return err
		}
		for _, c := range n.Copies {
			if err := insertCopy(ctx, tx, n.Sequence, c); err != nil {
				return err
			}
		}
		return tx.Audit(ctx, vault.Event{
			Action:  ActionCreate,
			Subject: fmt.Sprint(n.Sequence),
			Detail:  strings.Join(append(o.places(), o.Recipients...), " "),
		})
	})
	return n, err
}

// choosePlaces chooses the copies' names and opens their stores.
func (o CreateOptions) choosePlaces(ctx context.Context, tx *vault.Tx, n *newBackup) error {
	path := o.Path
	if o.Dir != "" {
		var err error
		if path, err = freeName(o.Dir, n.Created, n.Sequence); err != nil {
			return err
		}
	}
	switch {
	case o.Writer != nil:
		n.add(Copy{Name: "-"}, writerStore{o.Writer})
	case path != "":
		n.add(Copy{Name: path}, dirStore{filepath.Dir(path)})
	}
	for _, name := range o.Targets {
		store, err := openTarget(ctx, tx, name)
		if err != nil {
			return err
		}
		n.add(Copy{Target: name, Name: objectName(n.Created, n.Sequence)}, store)
	}
	return nil
}

func (n *newBackup) add(c Copy, s Store) {
	n.Copies = append(n.Copies, c)
	n.stores = append(n.stores, s)
}

// write writes the archive of one moment of the vault to w, and notes what it holds.
func (n *newBackup) write(ctx context.Context, v *vault.Vault, o CreateOptions, w io.Writer) (m Manifest, err error) {
	whole := false
	err = v.View(ctx, func(tx *vault.Tx) error {
		if err := n.describe(ctx, tx, o); err != nil {
			return err
		}
		a, err := newArchive(ctx, tx, filepath.Dir(v.Path()), n.Record, o)
		if err != nil {
			return err
		}
		defer a.close()
		file := newMeasure(w)
		if err := a.stream(file); err != nil {
			return err
		}
		m = a.manifest
		n.Size, n.SHA256 = file.size, file.hash()
		n.SumsSHA256, n.ContentHash = hashOf(a.sums), a.contentHash
		n.Nodes, n.SSHKeys, n.Signer = m.Counts.Nodes, m.Counts.SSHKeys, m.SignerFingerprint()
		n.AuditSeq, n.AuditHash = m.AuditSeq, m.AuditHash
		whole = true
		return nil
	})
	if whole {
		err = nil // ctx was cancelled before the read transaction ended: the file is good
	}
	return m, err
}

// describe notes the content digest and who can open the backup.
func (n *newBackup) describe(ctx context.Context, tx *vault.Tx, o CreateOptions) error {
	var err error
	if n.Digest, err = currentDigest(ctx, tx); err != nil {
		return err
	}
	_, slots, err := tx.CheckedSlots(ctx)
	if err != nil {
		return err
	}
	for _, s := range slots {
		n.Recipients = append(n.Recipients, Recipient{Recipient: s.Recipient, Label: s.Label})
	}
	for _, to := range o.Recipients {
		n.Recipients = append(n.Recipients, Recipient{Recipient: to})
	}
	return nil
}

// currentDigest returns the content digest of the vault at the moment of the transaction.
func currentDigest(ctx context.Context, tx *vault.Tx) (string, error) {
	head, err := tx.AuditHead(ctx)
	if err != nil {
		return "", err
	}
	row, err := auditRow(ctx, tx, head.Seq)
	return row.Digest, err
}

// auditRow returns a row of the audit log; if there is none, an empty one.
func auditRow(ctx context.Context, tx *vault.Tx, seq int64) (vault.AuditRow, error) {
	for row, err := range tx.AuditRows(ctx, seq) {
		if err != nil || row.Seq != seq {
			return vault.AuditRow{}, err
		}
		return row, nil
	}
	return vault.AuditRow{}, nil
}

// copyOut copies the file to each place, to all of them at once. It returns the errors
// of those that failed.
func (n *newBackup) copyOut(ctx context.Context, file io.ReaderAt) error {
	var sum [sha256.Size]byte
	if _, err := hex.Decode(sum[:], []byte(n.SHA256)); err != nil {
		return err
	}
	failed := make([]error, len(n.Copies))
	var copying sync.WaitGroup
	for i := range n.Copies {
		copying.Go(func() {
			c := &n.Copies[i]
			name := c.Name
			if c.Target == "" {
				name = filepath.Base(name)
			}
			put, err := n.stores[i].Put(ctx, name, io.NewSectionReader(file, 0, n.Size), sum)
			if err == nil {
				c.Written, c.Version, c.LockedUntil = put.Written, put.Version, put.LockedUntil
				return
			}
			c.Failed = err.Error()
			if c.Target != "" {
				err = fmt.Errorf("target %s: %w", c.Target, err)
			}
			failed[i] = err
		})
	}
	copying.Wait()
	return errors.Join(failed...)
}

func (n *newBackup) written() (count int) {
	for _, c := range n.Copies {
		if c.There() {
			count++
		}
	}
	return count
}

// record records what became of the copies. It reports whether the configuration is the
// same as in the last completed backup.
func (n *newBackup) record(ctx context.Context, v *vault.Vault) (unchanged bool, err error) {
	err = v.Update(ctx, func(tx *vault.Tx) error {
		_, previous, err := selectPrevious(ctx, tx, n.Sequence)
		if err != nil {
			return err
		}
		unchanged = previous == n.Digest
		for _, c := range n.Copies {
			if !c.Written.IsZero() {
				c.Written = tx.Now()
			}
			if err := updateCopy(ctx, tx, n.Sequence, c); err != nil {
				return err
			}
		}
		if n.written() == 0 {
			return nil
		}
		return completeBackup(ctx, tx, n.Record)
	})
	return unchanged, err
}

// places names where the backup goes, for the audit log.
func (o CreateOptions) places() []string {
	switch {
	case o.Writer != nil:
		return []string{"-"}
	case o.Path != "":
		return []string{o.Path}
	case o.Dir != "":
		return []string{o.Dir}
	}
	return o.Targets
}

// prepare refuses what cannot work before a sequence is used. It makes Path or
// Dir absolute.
func (o *CreateOptions) prepare(db string) (err error) {
	switch {
	case o.Writer != nil:
		return nil
	case o.Path != "":
		if o.Path, err = absolute(o.Path); err != nil {
			return err
		}
		return checkNewFile(o.Path, db)
	case o.Dir != "":
		if o.Dir, err = absolute(o.Dir); err != nil {
			return err
		}
		return makeDir(o.Dir)
	case len(o.Targets) > 0:
		return nil
	}
	return fmt.Errorf("%w: no place is given for the backup", vault.ErrInvalid)
}

func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve path %q: %w", path, err)
	}
	return abs, nil
}

// checkNewFile checks that a backup can be created at path.
func checkNewFile(path, db string) error {
	if err := vault.CheckOutput(path, db); err != nil {
		return err
	}
	if ok, err := durable.Exists(path); err != nil {
		return err
	} else if ok {
		return fmt.Errorf("%q %w", path, ErrExists)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("write backup: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("write backup: %q is not a directory", dir)
	}
	return nil
}

// makeDir makes the directory for backups where it is missing, and checks that
// it is private.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = durable.OS{}.SyncDir(filepath.Dir(dir))
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("make directory for backups: %w", err)
	}
	return vault.CheckPrivate(dir)
}

func (o CreateOptions) checkRecipients(ctx context.Context, v *vault.Vault) error {
	return v.View(ctx, func(tx *vault.Tx) error {
		_, err := tx.Recipients(ctx, o.Recipients...)
		return err
	})
}

// fileSuffix ends the name of each backup file.
const fileSuffix = ".tar.gz.age"

// freeName returns the first default name in dir that is free.
func freeName(dir string, created time.Time, sequence int64) (string, error) {
	for n := 1; ; n++ {
		suffix := ""
		if n > 1 {
			suffix = fmt.Sprintf("-%d", n)
		}
		path := filepath.Join(dir, fileName(created, sequence)+suffix+fileSuffix)
		if ok, err := durable.Exists(path); err != nil || !ok {
			return path, err
		}
	}
}

// objectName returns a name that no other upload has ever had: an answer that was lost
// can then be told from another writer's object.
func objectName(created time.Time, sequence int64) string {
	var unique [8]byte
	rand.Read(unique[:])
	return fileName(created, sequence) + "-" + hex.EncodeToString(unique[:]) + fileSuffix
}

// The parts of a default name: beehives-20260102T150405Z-000007.
const (
	namePrefix = "beehives-"
	nameTime   = "20060102T150405Z"
)

func fileName(created time.Time, sequence int64) string {
	return fmt.Sprintf("%s%s-%06d", namePrefix, created.Format(nameTime), sequence)
}
