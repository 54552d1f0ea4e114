package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// CreateOptions says where a backup goes. One of Path, Dir and Writer is
// needed.
type CreateOptions struct {
	// Path is the new file's name; its directory must exist.
	Path string
	// Dir is where the file goes under its default name; it is made, mode 0700,
	// when it is not there.
	Dir string
	// Writer receives the file instead.
	Writer io.Writer

	// Recipients are encrypted to besides the vault's own; they must be of its
	// class. See [identity.ParseRecipient].
	Recipients []string
	// Program stands in the manifest: name and version.
	Program string
	// Progress is told how many bytes of how many were archived. Nil: nobody.
	Progress func(done, total int64)
	// FS is the file system. Nil: the real one.
	FS durable.FS
}

// Created tells of a backup.
type Created struct {
	Path      string // absolute; "-" for a Writer
	Sequence  int64
	Size      int64  // bytes
	SHA256    string // of the file, hex
	Signer    string // public key line
	Manifest  Manifest
	Unchanged bool // the registry is as it was in the last completed backup
}

// Create writes a backup of one moment of the vault. The file appears whole
// under its name or not at all, and never over another. Memory use does not
// grow with the vault.
//
// Errors: [ErrExists], [ErrNotRecorded] (with a file in place, so Created is
// valid), [vault.ErrInvalid] for a recipient or for a Path that is reserved for a
// vault's own files, those of [vault.Vault.Update].
func Create(ctx context.Context, v *vault.Vault, opts CreateOptions) (Created, error) {
	if opts.FS == nil {
		opts.FS = durable.OS{}
	}
	if err := opts.prepare(v.Path()); err != nil {
		return Created{}, err
	}
	if err := opts.checkRecipients(ctx, v); err != nil {
		return Created{}, err
	}
	// The sequence is taken before the file exists: no two files ever share one.
	var sequence int64
	err := v.Update(ctx, func(tx *vault.Tx) (err error) {
		if sequence, err = insertBackup(ctx, tx); err != nil {
			return err
		}
		return tx.Audit(ctx, vault.Event{Action: "backup.create", Subject: fmt.Sprint(sequence), Detail: strings.Join(append([]string{opts.target()}, opts.Recipients...), " ")})
	})
	if err != nil {
		return Created{}, fmt.Errorf("begin backup: %w", err)
	}
	var done Record
	var manifest Manifest
	err = v.View(ctx, func(tx *vault.Tx) error {
		a, err := plan(ctx, tx, sequence, opts)
		if err != nil {
			return err
		}
		manifest = a.manifest
		done, err = opts.put(func(w io.Writer) error { return a.stream(ctx, tx, w) }, a.manifest)
		done.Sequence, done.SumsSHA256, done.ContentHash = sequence, a.sumsHash(), a.contentHash
		return err
	})
	if err != nil {
		return Created{}, fmt.Errorf("write backup: %w", err)
	}
	created := Created{Path: done.Path, Sequence: sequence, Size: done.Size, SHA256: done.SHA256, Signer: manifest.Signer, Manifest: manifest}
	err = v.Update(context.WithoutCancel(ctx), func(tx *vault.Tx) error {
		before, err := selectLastContent(ctx, tx, sequence)
		if err != nil {
			return err
		}
		created.Unchanged = before == done.ContentHash
		return completeBackup(ctx, tx, done)
	})
	if err != nil {
		return created, fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	return created, nil
}

// target names where the backup goes, for the audit log.
func (o CreateOptions) target() string {
	switch {
	case o.Writer != nil:
		return "-"
	case o.Path != "":
		return o.Path
	}
	return o.Dir
}

// prepare makes what can be made, and refuses what cannot work, before a
// sequence is used up.
func (o *CreateOptions) prepare(db string) error {
	switch {
	case o.Writer != nil:
		return nil
	case o.Path != "":
		abs, err := filepath.Abs(o.Path)
		if err != nil {
			return fmt.Errorf("resolve path %q: %w", o.Path, err)
		}
		o.Path = abs
		if err := vault.CheckOutput(abs, db); err != nil {
			return err
		}
		if ok, err := durable.Exists(abs); err != nil {
			return err
		} else if ok {
			return fmt.Errorf("%q %w", abs, ErrExists)
		}
		if info, err := os.Stat(filepath.Dir(abs)); err != nil {
			return fmt.Errorf("write backup: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("write backup: %q is not a directory", filepath.Dir(abs))
		}
		return nil
	case o.Dir == "":
		return fmt.Errorf("%w: no place for the backup given", vault.ErrInvalid)
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("resolve path %q: %w", o.Dir, err)
	}
	o.Dir = abs
	if err := os.Mkdir(abs, 0o700); err == nil {
		if err := o.FS.SyncDir(filepath.Dir(abs)); err != nil {
			return fmt.Errorf("make directory for backups: %w", err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory for backups: %w", err)
	}
	return vault.CheckPrivate(abs)
}

func (o CreateOptions) checkRecipients(ctx context.Context, v *vault.Vault) error {
	return v.View(ctx, func(tx *vault.Tx) error {
		_, err := tx.Recipients(ctx, o.Recipients...)
		return err
	})
}

// put lets write fill the file, and puts it in place.
func (o CreateOptions) put(write func(io.Writer) error, m Manifest) (Record, error) {
	var measured *measure
	through := func(w io.Writer) error {
		measured = newMeasure(w)
		err := write(measured)
		if b, ok := w.(interface{ Flush() error }); ok && err == nil {
			err = b.Flush() // what is still in a buffer is not written
		}
		return err
	}
	path := "-"
	var err error
	switch {
	case o.Writer != nil:
		err = through(o.Writer)
	case o.Path != "":
		path = o.Path
		err = durable.CreateFrom(o.FS, path, through)
	default:
		created, _ := wire.ParseTime(m.Created)
		for n := 1; ; n++ {
			path = filepath.Join(o.Dir, fileName(created, m.Sequence, n))
			if ok, e := durable.Exists(path); e != nil || !ok {
				break
			}
		}
		err = durable.CreateFrom(o.FS, path, through)
	}
	if errors.Is(err, fs.ErrExist) {
		return Record{}, fmt.Errorf("%q %w", path, ErrExists)
	} else if err != nil {
		return Record{}, err
	}
	return Record{Path: path, Size: measured.size, SHA256: measured.hash()}, nil
}

// fileName is a backup's default name; n counts up where one is taken.
func fileName(created time.Time, sequence int64, n int) string {
	suffix := ""
	if n > 1 {
		suffix = fmt.Sprintf("-%d", n)
	}
	return fmt.Sprintf("beehives-%s-%06d%s.tar.gz.age", created.Format("20060102T150405Z"), sequence, suffix)
}

// archive is a backup whose members have been measured: the first of two passes
// over one snapshot.
type archive struct {
	manifest    Manifest
	recipients  []age.Recipient
	members     []member
	sizes       []int64
	hashes      []string
	sums        []byte
	signature   []byte
	contentHash string
	total       int64
	progress    func(done, total int64)
}

// plan is the first pass.
func plan(ctx context.Context, tx *vault.Tx, sequence int64, opts CreateOptions) (*archive, error) {
	m, err := newManifest(ctx, tx, sequence, opts.Program)
	if err != nil {
		return nil, err
	}
	a := &archive{manifest: m, progress: opts.Progress}
	if a.recipients, err = tx.Recipients(ctx, opts.Recipients...); err != nil {
		return nil, err
	}
	var fingerprints []string
	for k, err := range registry.EachSSHKey(ctx, tx) {
		if err != nil {
			return nil, err
		}
		fingerprints = append(fingerprints, k.Fingerprint)
	}
	a.members = append([]member{
		{memberManifest, func(_ context.Context, _ *vault.Tx, w io.Writer) error { return m.encode(w) }},
		{memberSigners, writeSigners},
		{memberReadme, func(_ context.Context, _ *vault.Tx, w io.Writer) error {
			_, err := io.WriteString(w, readme(m))
			return err
		}},
	}, contentMembers(fingerprints)...)

	// What goes into the file is what was read here, row by row: see stream.
	if err := tx.BeginCheck(ctx); err != nil {
		return nil, err
	}
	var sums, content []sum
	for _, mb := range a.members {
		measured := newMeasure(io.Discard)
		if err := mb.write(ctx, tx, measured); err != nil {
			return nil, fmt.Errorf("%s: %w", mb.name, err)
		}
		s := sum{name: mb.name, hash: measured.hash()}
		sums = append(sums, s)
		switch mb.name {
		case memberManifest, memberReadme, memberSigners, memberAuditLog: // differ of themselves
		default:
			content = append(content, s)
		}
		a.sizes = append(a.sizes, measured.size)
		a.hashes = append(a.hashes, s.hash)
		a.total += measured.size
	}
	if err := tx.EndCheck(); err != nil {
		return nil, err
	}
	a.sums = encodeSums(sums)
	a.contentHash = hashOf(encodeSums(content))
	signer, err := tx.Signer(ctx)
	if err != nil {
		return nil, err
	}
	a.signature, err = vault.Sign(a.sums, signer, vault.SignatureNamespace)
	return a, err
}

func hashOf(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func (a *archive) sumsHash() string { return hashOf(a.sums) }

// stream is the second pass: tar in gzip in age.
func (a *archive) stream(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	encrypted, err := age.Encrypt(w, a.recipients...)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	zipped := gzip.NewWriter(encrypted)
	tarred := tar.NewWriter(zipped)
	created, err := wire.ParseTime(a.manifest.Created)
	if err != nil {
		return err
	}
	add := func(name string, size int64, write func(io.Writer) error) error {
		err := tarred.WriteHeader(&tar.Header{
			Format:   tar.FormatUSTAR,
			Typeflag: tar.TypeReg,
			Name:     name,
			Size:     size,
			Mode:     0o600,
			ModTime:  created.Truncate(time.Second),
		})
		if err == nil {
			err = write(tarred)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	for _, fixed := range []struct {
		name string
		data []byte
	}{{memberSums, a.sums}, {memberSignature, a.signature}} {
		err := add(fixed.name, int64(len(fixed.data)), func(w io.Writer) error {
			_, err := io.Copy(w, bytes.NewReader(fixed.data))
			return err
		})
		if err != nil {
			return err
		}
	}
	var done int64
	for i, mb := range a.members {
		err := add(mb.name, a.sizes[i], func(w io.Writer) error {
			again := newMeasure(w)
			if err := mb.write(ctx, tx, again); err != nil {
				return err
			}
			if again.hash() != a.hashes[i] { // a page was replaced between the two passes
				return fmt.Errorf("%w: two readings of one snapshot differ", vault.ErrDamaged)
			}
			return nil
		})
		if err != nil {
			return err
		}
		done += a.sizes[i]
		if a.progress != nil {
			a.progress(done, a.total)
		}
	}
	for _, c := range []io.Closer{tarred, zipped, encrypted} {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}
