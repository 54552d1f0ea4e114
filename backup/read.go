package backup

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"github.com/klauspost/compress/gzip"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ReadOptions says how a backup is opened and which signer is trusted.
type ReadOptions struct {
	// Identities decrypt the file. At least one is needed.
	Identities []age.Identity
	// Trust decides whether the signer is trusted; see [TrustSigners]. It is called
	// once, after the signature was verified and before the rest of the file is
	// used. An error ends the reading and is returned. Nil: no signer is trusted.
	Trust func(ctx context.Context, c Claim) error
	// AuditRow is called by [Verify] for each row of the backup's audit log. The
	// rest of the file is not verified yet at that moment. Nil: rows are not
	// reported.
	AuditRow func(vault.AuditRow)
}

// Claim is what a backup says about its origin. The signature is the signer's.
// Nothing in the file can prove who the signer is.
type Claim struct {
	VaultID string
	Signer  string // fingerprint, "SHA256:..."
	// Predecessors are the fingerprints of the vault's earlier signers. Certificates
	// lead from each of them to Signer. Anyone who knew one of their keys could make
	// such a certificate.
	Predecessors []string
	Sequence     int64
	Created      string // as in [Manifest]
	// SumsSHA256 is the SHA-256 of the file's SHA256SUMS, in hex. The vault that made
	// the file recorded it; see [Record].
	SumsSHA256 string
}

// TrustSigners trusts the signers with these fingerprints. A certified successor
// of one is [ErrSuccessor]. Any other signer is [ErrUntrusted].
func TrustSigners(fingerprints ...string) func(context.Context, Claim) error {
	return func(_ context.Context, c Claim) error {
		if slices.Contains(fingerprints, c.Signer) {
			return nil
		}
		for _, before := range c.Predecessors {
			if slices.Contains(fingerprints, before) {
				return fmt.Errorf("%w: it is %s, which %s certified", ErrSuccessor, c.Signer, before)
			}
		}
		return fmt.Errorf("%w: its signer is %s, which is not the one given", ErrUntrusted, c.Signer)
	}
}

// sink receives what a backup holds, in the order of the file. The rest of the
// file is not verified yet: a sink that stores a row must be able to undo it.
type sink interface {
	node(ctx context.Context, n registry.Node) error
	sshKey(ctx context.Context, k registry.SSHKey, privatePEM []byte) error
	keyRotation(ctx context.Context, k registry.KeyRotation) error
	hostKey(ctx context.Context, k registry.HostKey) error
	target(ctx context.Context, t Target) error
	setting(ctx context.Context, s registry.Setting) error
	auditRow(ctx context.Context, r vault.AuditRow) error
	slots(ctx context.Context, slots []vault.Slot) error
}

// read reads and verifies a whole backup: the encryption to its end, the
// signature and its signer, the order and the hash of every member, the counts,
// the rows with what they refer to, and the audit chain. It returns no error only when all of
// them are right. So Verify refuses what Restore refuses.
func read(ctx context.Context, r io.Reader, opts ReadOptions, plugins *plugin.ClientUI, to sink) (Manifest, error) {
	if len(opts.Identities) == 0 {
		return Manifest{}, fmt.Errorf("%w: no identity is given", vault.ErrNoUnlockMethod)
	}
	if opts.Trust == nil {
		opts.Trust = TrustSigners()
	}
	decrypted, err := decrypt(ctx, r, opts.Identities)
	if err != nil {
		return Manifest{}, err
	}
	plain := bufio.NewReader(decrypted)
	zipped, err := gzip.NewReader(plain)
	if err != nil {
		return Manifest{}, damaged(ctx, err)
	}
	zipped.Multistream(false) // one stream; bytes after it are found below
	a := &archiveReader{tar: tar.NewReader(zipped), trust: opts.Trust, to: to, plugins: plugins}
	m, err := a.read(ctx)
	if err != nil {
		return Manifest{}, damaged(ctx, err)
	}
	for _, rest := range []io.Reader{zipped, plain} {
		n, err := io.Copy(io.Discard, io.LimitReader(rest, 1))
		if err != nil {
			return Manifest{}, damaged(ctx, err)
		}
		if n > 0 {
			return Manifest{}, fmt.Errorf("%w: bytes after its end", ErrDamaged)
		}
	}
	return m, nil
}

// maxHead limits what is read before the file is decrypted, in bytes: age keeps all of a file's
// header in memory. The longest stanza of a recipient has 2 kB.
const maxHead = 1 << 20

// headLimit refuses to read more than left bytes. If left is negative, there is no limit.
type headLimit struct {
	r    io.Reader
	left int
}

// Read implements [io.Reader].
func (h *headLimit) Read(p []byte) (int, error) {
	if h.left < 0 {
		return h.r.Read(p)
	}
	if h.left == 0 {
		return 0, tooLong(maxHead)
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}

// decrypt returns the content of an age file.
func decrypt(ctx context.Context, r io.Reader, identities []age.Identity) (io.Reader, error) {
	file := &headLimit{r: contextReader{ctx, r}, left: maxHead}
	decrypted, err := age.Decrypt(file, identities...)
	if err != nil {
		return nil, decryptError(ctx, err, identities)
	}
	file.left = -1
	return decrypted, nil
}

// contextReader returns the error of its context when that has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements [io.Reader].
func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// decryptError distinguishes a file that none of the identities opens from a file
// that is not an age file.
func decryptError(ctx context.Context, err error, identities []age.Identity) error {
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		if err := identity.Unopened(identities); err != nil {
			return err
		}
		return fmt.Errorf("%w: the identity does not open this backup", vault.ErrWrongKey)
	}
	return damaged(ctx, err)
}

// damaged returns err as [ErrDamaged], unless it is the context's or the sink's or
// has a sentinel of its own.
func damaged(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var s sinkError
	if errors.As(err, &s) {
		return s.err
	}
	for _, other := range []error{ErrDamaged, ErrUntrusted, ErrSuccessor, ErrOtherBackup, vault.ErrNewer} {
		if errors.Is(err, other) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// sinkError is an error of the sink or of [ReadOptions.Trust]. It says nothing
// about the file.
type sinkError struct{ err error }

func (e sinkError) Error() string { return e.err.Error() }

func asSinkError(err error) error {
	if err == nil {
		return nil
	}
	return sinkError{err}
}
