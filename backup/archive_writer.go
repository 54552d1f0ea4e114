package backup

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// archiveWriter writes the archive of one moment of the vault. It reads the vault once:
// readVault writes the members to a spool, and stream writes the file from it, behind
// SHA256SUMS. So no member is held in memory.
type archiveWriter struct {
	tx           *vault.Tx
	manifest     Manifest
	recipients   []age.Recipient
	fingerprints []string // of the SSH keys, in their order
	addresses    *hashSet // of the nodes; nil: there are no host keys
	spool        *spool
	members      []bodyMember
	sums         []byte
	signature    []byte
	contentHash  string // see Record

	progress    func(done, total int64)
	done, total int64 // rows
}

// newArchiveWriter returns a writer of the members of a vault with so many rows.
func newArchiveWriter(tx *vault.Tx, m Manifest, progress func(done, total int64)) *archiveWriter {
	a := &archiveWriter{tx: tx, manifest: m, progress: progress, total: m.Counts.total()}
	if m.Counts.HostKeys > 0 {
		a.addresses = newHashSet(m.Counts.Nodes)
	}
	return a
}

// newArchive reads the vault. The result is ready for stream. The caller closes it. The spool
// is made in dir.
func newArchive(ctx context.Context, tx *vault.Tx, dir string, r Record, opts CreateOptions) (*archiveWriter, error) {
	m, err := newManifest(ctx, tx, r.Sequence, r.Created, opts.Program)
	if err != nil {
		return nil, err
	}
	a := newArchiveWriter(tx, m, opts.Progress)
	if a.recipients, err = tx.Recipients(ctx, opts.Recipients...); err != nil {
		return nil, err
	}
	if a.spool, err = newSpool(dir); err != nil {
		return nil, err
	}
	if err = a.readVault(ctx); err == nil {
		err = a.sign(ctx)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *archiveWriter) close() { a.spool.close() }

// readVault writes each member to the spool. Meanwhile the vault checks the rows that are read
// against its digests, and the audit log against its chain.
func (a *archiveWriter) readVault(ctx context.Context) error {
	if err := a.tx.BeginCheck(ctx); err != nil {
		return err
	}
	b := newBody(a.spool)
	defer b.end()
	for _, m := range layout(int(a.manifest.Counts.SSHKeys)) {
		if err := m.write(a, ctx, b); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		b.endMember(m)
	}
	if err := b.end(); err != nil {
		return err
	}
	a.members = b.members
	return a.tx.EndCheck()
}

// sign makes SHA256SUMS and its signature.
func (a *archiveWriter) sign(ctx context.Context) error {
	var sums, content []sum
	for _, m := range a.members {
		sums = append(sums, m.sum)
		if m.content {
			content = append(content, m.sum)
		}
	}
	a.sums = encodeSums(sums)
	a.contentHash = hashOf(encodeSums(content))
	signer, err := a.tx.Signer(ctx)
	if err != nil {
		return err
	}
	a.signature, err = vault.Sign(a.sums, signer, vault.SignatureNamespace)
	return err
}

// stream writes the file: tar in gzip in age.
func (a *archiveWriter) stream(w io.Writer) error {
	encrypted, err := age.Encrypt(w, a.recipients...)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	if err := a.writeGzip(encrypted); err != nil {
		return err
	}
	if err := encrypted.Close(); err != nil {
		return err
	}
	a.report(a.total)
	return nil
}

// writeGzip writes one gzip stream: its own parts, and between them those of the spool.
func (a *archiveWriter) writeGzip(w io.Writer) error {
	created, err := wire.ParseTime(a.manifest.Created)
	if err != nil {
		return err
	}
	spooled, err := a.spool.reader()
	if err != nil {
		return err
	}
	if _, err := w.Write(gzipHeader); err != nil {
		return err
	}
	tar := tarWriter{parts: newPartWriter(w), modified: created}
	if err := tar.add(memberSums, a.sums); err != nil {
		return err
	}
	if err := tar.add(memberSignature, a.signature); err != nil {
		return err
	}
	whole, err := tar.parts.end()
	if err != nil {
		return err
	}
	for _, m := range a.members {
		if err := tar.header(m.name, m.size); err != nil {
			return err
		}
		head, err := tar.parts.end()
		if err != nil {
			return err
		}
		if _, err := io.CopyN(w, spooled, m.part.compressed); err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		whole = whole.and(head).and(m.part)
	}
	if err := tar.end(); err != nil {
		return err
	}
	end, err := tar.parts.last()
	if err != nil {
		return err
	}
	_, err = w.Write(whole.and(end).gzipTrailer())
	return err
}

// report reports that so many rows are done.
func (a *archiveWriter) report(done int64) {
	if a.done = done; a.progress != nil {
		a.progress(a.done, a.total)
	}
}

// reportEvery is after how many rows a report is made.
const reportEvery = 1000

// reporting reports the values that it yields.
func reporting[T any](a *archiveWriter, values iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range values {
			if a.done++; a.done%reportEvery == 0 && a.done < a.total {
				a.report(a.done)
			}
			if !yield(v, err) {
				return
			}
		}
	}
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
	lines := lineWriter{w: w}
	for n, err := range reporting(a, ahead(registry.EachNode(ctx, a.tx))) {
		if err != nil {
			return err
		}
		if err := lines.write(n); err != nil {
			return err
		}
		if a.addresses != nil {
			a.addresses.add(n.Name, n.KnownHostsAddress())
		}
	}
	return nil
}

func (a *archiveWriter) writeSSHKeys(ctx context.Context, w io.Writer) error {
	lines := lineWriter{w: w}
	for k, err := range reporting(a, ahead(registry.EachSSHKey(ctx, a.tx))) {
		if err != nil {
			return err
		}
		if err := lines.write(k); err != nil {
			return err
		}
		a.fingerprints = append(a.fingerprints, k.Fingerprint)
	}
	if n := a.manifest.Counts.SSHKeys; int64(len(a.fingerprints)) != n {
		return fmt.Errorf("%w: %d SSH keys were counted, and %d read", vault.ErrDamaged, n, len(a.fingerprints))
	}
	return nil
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
	return writeLines(w, reporting(a, ahead(registry.EachKeyRotation(ctx, a.tx))))
}

func (a *archiveWriter) writeHostKeys(ctx context.Context, w io.Writer) error {
	return writeLines(w, reporting(a, ahead(registry.EachHostKey(ctx, a.tx))))
}

func (a *archiveWriter) writeKnownHosts(ctx context.Context, w io.Writer) error {
	for k, err := range ahead(registry.EachKnownHost(ctx, a.tx)) {
		if err != nil {
			return err
		}
		if a.addresses == nil || !a.addresses.has(k.Node, k.Address) {
			return fmt.Errorf("%w: two readings of node %q differ", vault.ErrDamaged, k.Node)
		}
		if _, err := io.WriteString(w, k.Line()); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveWriter) writeTargets(ctx context.Context, w io.Writer) error {
	lines := lineWriter{w: w}
	for t, err := range EachTarget(ctx, a.tx) {
		if err != nil {
			return err
		}
		err := lines.write(t.json())
		clear(t.Secret)
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveWriter) writeSettings(ctx context.Context, w io.Writer) error {
	lines := lineWriter{w: w}
	for s, err := range registry.EachSetting(ctx, a.tx) {
		if err == nil {
			err = lines.write(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveWriter) writeAuditLog(ctx context.Context, w io.Writer) error {
	lines := lineWriter{w: w}
	var head vault.AuditHead
	for row, err := range reporting(a, ahead(a.tx.AuditRows(ctx, math.MinInt64))) {
		if err != nil {
			return err
		}
		if head, err = head.Follow(row); err != nil {
			return err
		}
		if err := lines.write(row); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveWriter) writeSlots(ctx context.Context, w io.Writer) error {
	_, slots, err := a.tx.CheckedSlots(ctx)
	if err != nil {
		return err
	}
	return writeAll(w, slots)
}
