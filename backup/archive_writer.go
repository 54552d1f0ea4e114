package backup

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// archiveWriter writes the archive of one moment of the vault. It reads the
// vault twice in one transaction: measureArchive takes the sizes and the sums,
// stream writes. So no member is held in memory.
type archiveWriter struct {
	tx           *vault.Tx
	manifest     Manifest
	recipients   []age.Recipient
	fingerprints []string // of the SSH keys, in their order
	members      []measuredMember
	sums         []byte
	signature    []byte
	contentHash  string // see Record
	total        int64  // bytes of all members
	progress     func(done, total int64)
}

// measuredMember is a member whose size and hash are known.
type measuredMember struct {
	member
	size int64
	hash string
}

// measureArchive reads the vault for the first time. The result is ready for
// stream, in the same transaction.
func measureArchive(ctx context.Context, tx *vault.Tx, r Record, opts CreateOptions) (*archiveWriter, error) {
	m, err := newManifest(ctx, tx, r.Sequence, r.Created, opts.Program)
	if err != nil {
		return nil, err
	}
	a := &archiveWriter{tx: tx, manifest: m, progress: opts.Progress}
	if a.recipients, err = tx.Recipients(ctx, opts.Recipients...); err != nil {
		return nil, err
	}
	for k, err := range registry.EachSSHKey(ctx, tx) {
		if err != nil {
			return nil, err
		}
		a.fingerprints = append(a.fingerprints, k.Fingerprint)
	}
	if err := a.measureMembers(ctx); err != nil {
		return nil, err
	}
	signer, err := tx.Signer(ctx)
	if err != nil {
		return nil, err
	}
	a.signature, err = vault.Sign(a.sums, signer, vault.SignatureNamespace)
	return a, err
}

// measureMembers takes the size and the hash of each member. Meanwhile the vault
// checks the rows that are read against its digests: stream compares what it
// reads with these hashes, so only checked rows go into the file.
func (a *archiveWriter) measureMembers(ctx context.Context) error {
	if err := a.tx.BeginCheck(ctx); err != nil {
		return err
	}
	var sums, content []sum
	for _, m := range layout(len(a.fingerprints)) {
		measured := newMeasure(io.Discard)
		if err := m.write(a, ctx, measured); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		s := sum{name: m.name, hash: measured.hash()}
		sums = append(sums, s)
		if m.content {
			content = append(content, s)
		}
		a.members = append(a.members, measuredMember{m, measured.size, s.hash})
		a.total += measured.size
	}
	if err := a.tx.EndCheck(); err != nil {
		return err
	}
	a.sums = encodeSums(sums)
	a.contentHash = hashOf(encodeSums(content))
	return nil
}

// stream writes the archive: tar in gzip in age.
func (a *archiveWriter) stream(ctx context.Context, w io.Writer) error {
	encrypted, err := age.Encrypt(w, a.recipients...)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	zipped := gzip.NewWriter(encrypted)
	tarred := tar.NewWriter(zipped)
	if err := a.writeTar(ctx, tarred); err != nil {
		return err
	}
	for _, c := range []io.Closer{tarred, zipped, encrypted} {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// writeTar writes SHA256SUMS, its signature and then the members.
func (a *archiveWriter) writeTar(ctx context.Context, w *tar.Writer) error {
	created, err := wire.ParseTime(a.manifest.Created)
	if err != nil {
		return err
	}
	add := func(name string, size int64, write func() error) error {
		err := w.WriteHeader(&tar.Header{
			Format:   tar.FormatUSTAR,
			Typeflag: tar.TypeReg,
			Name:     name,
			Size:     size,
			Mode:     0o600,
			ModTime:  created.Truncate(time.Second),
		})
		if err == nil {
			err = write()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	addBytes := func(name string, data []byte) error {
		return add(name, int64(len(data)), func() error {
			_, err := w.Write(data)
			return err
		})
	}
	if err := addBytes(memberSums, a.sums); err != nil {
		return err
	}
	if err := addBytes(memberSignature, a.signature); err != nil {
		return err
	}
	var done int64
	for _, m := range a.members {
		if err := add(m.name, m.size, func() error { return a.writeAgain(ctx, m, w) }); err != nil {
			return err
		}
		if done += m.size; a.progress != nil {
			a.progress(done, a.total)
		}
	}
	return nil
}

// writeAgain writes a member for the second time. Other bytes than the first
// time are [vault.ErrDamaged]: a page of the database was replaced in between.
func (a *archiveWriter) writeAgain(ctx context.Context, m measuredMember, w io.Writer) error {
	again := newMeasure(w)
	if err := m.write(a, ctx, again); err != nil {
		return err
	}
	if again.hash() != m.hash {
		return fmt.Errorf("%w: two readings of one snapshot differ", vault.ErrDamaged)
	}
	return nil
}

func (a *archiveWriter) writeManifest(_ context.Context, w io.Writer) error {
	return a.manifest.encode(w)
}

func (a *archiveWriter) writeSigners(ctx context.Context, w io.Writer) error {
	signers, err := a.tx.Signers(ctx)
	if err != nil {
		return err
	}
	return writeAll(w, signers)
}

func (a *archiveWriter) writeReadme(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, readme(a.manifest))
	return err
}

func (a *archiveWriter) writeNodes(ctx context.Context, w io.Writer) error {
	return writeLines(w, registry.EachNode(ctx, a.tx))
}

func (a *archiveWriter) writeSSHKeys(ctx context.Context, w io.Writer) error {
	return writeLines(w, registry.EachSSHKey(ctx, a.tx))
}

// writePrivateKey writes the private key at index i of ssh_keys.jsonl.
func (a *archiveWriter) writePrivateKey(ctx context.Context, w io.Writer, i int) error {
	private, err := registry.PrivateKeyPEM(ctx, a.tx, a.fingerprints[i])
	if err != nil {
		return err
	}
	defer clear(private)
	_, err = w.Write(private)
	return err
}

func (a *archiveWriter) writeRotations(ctx context.Context, w io.Writer) error {
	return writeLines(w, registry.EachKeyRotation(ctx, a.tx))
}

func (a *archiveWriter) writeHostKeys(ctx context.Context, w io.Writer) error {
	return writeLines(w, registry.EachHostKey(ctx, a.tx))
}

func (a *archiveWriter) writeKnownHosts(ctx context.Context, w io.Writer) error {
	return registry.WriteKnownHosts(ctx, a.tx, w)
}

func (a *archiveWriter) writeTargets(ctx context.Context, w io.Writer) error {
	for t, err := range EachTarget(ctx, a.tx) {
		if err != nil {
			return err
		}
		err := writeLine(w, t.json())
		clear(t.Secret)
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveWriter) writeAuditLog(ctx context.Context, w io.Writer) error {
	return writeLines(w, a.tx.AuditRows(ctx, 1))
}

func (a *archiveWriter) writeSlots(ctx context.Context, w io.Writer) error {
	_, slots, err := a.tx.CheckedSlots(ctx)
	if err != nil {
		return err
	}
	return writeAll(w, slots)
}
