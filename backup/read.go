package backup

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ReadOptions says how a backup is opened and whom to trust.
type ReadOptions struct {
	// Identities open the file.
	Identities []age.Identity
	// Trust decides on who made the file; see [TrustSigners]. It is asked once, after
	// the signature was verified and before anything else of the file is used. An error
	// ends the reading. Nil: nobody is trusted.
	Trust func(ctx context.Context, c Claim) error
	// AuditRow is given each row of the backup's audit log by [Verify], before the
	// file was read to its end. Nil: nobody wants them.
	AuditRow func(vault.AuditRow)
}

// Claim is what a backup says of its origin. The signature fits the signer; who that is,
// nothing in the file can prove.
type Claim struct {
	VaultID string
	Signer  string // fingerprint, "SHA256:..."
	// Predecessors are the fingerprints of the vault's earlier signers from which
	// certificates lead to this one. Who knew one of their keys can have made those.
	Predecessors []string
	// SumsSHA256 is the SHA-256 of the file's SHA256SUMS, in hex: the vault that made
	// the file recorded it.
	SumsSHA256 string
}

// TrustSigners trusts the signers with these fingerprints. A certified successor of one
// matches [ErrSuccessor], others match [ErrUntrusted].
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

// sink takes what a backup holds, in the order of the file. A row is given
// before the file was read to its end: whoever acts on it must be able to take
// it back.
type sink interface {
	node(ctx context.Context, n registry.Node) error
	sshKey(ctx context.Context, k registry.SSHKey, privatePEM []byte) error
	hostKey(ctx context.Context, k registry.HostKey) error
	auditRow(ctx context.Context, r vault.AuditRow) error
	slot(ctx context.Context, s vault.Slot) error
}

// read reads and verifies a whole backup: age to its end, the signature and its
// signer, every sum, the order of the members, the counts, and the audit chain.
// It returns nil only when all of it holds.
func read(ctx context.Context, r io.Reader, opts ReadOptions, to sink) (Manifest, error) {
	if len(opts.Identities) == 0 {
		return Manifest{}, fmt.Errorf("%w: no identity is given", vault.ErrNoWayIn)
	}
	if opts.Trust == nil {
		opts.Trust = TrustSigners()
	}
	decrypted, err := age.Decrypt(contextReader{ctx, r}, opts.Identities...)
	if err != nil {
		return Manifest{}, decryptError(ctx, err, opts.Identities)
	}
	// Not a second gzip stream behind the first, and no byte behind it.
	plain := bufio.NewReader(decrypted)
	zipped, err := gzip.NewReader(plain)
	if err != nil {
		return Manifest{}, damaged(ctx, err)
	}
	zipped.Multistream(false)
	a := &archiveReader{tar: tar.NewReader(zipped), trust: opts.Trust, to: to}
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

// contextReader ends a stream when its context ends.
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

// decryptError tells a file that none of the identities opens from one that is
// no age file.
func decryptError(ctx context.Context, err error, identities []age.Identity) error {
	if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
		if err := identity.Unopened(identities); err != nil {
			return err
		}
		return fmt.Errorf("%w: the identity does not open this backup", vault.ErrWrongKey)
	}
	return damaged(ctx, err)
}

// damaged marks an error of the file's own as [ErrDamaged], and leaves those
// that say something else.
func damaged(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var s sinkError
	if errors.As(err, &s) {
		return s.err
	}
	for _, other := range []error{ErrDamaged, ErrUntrusted, ErrSuccessor, vault.ErrNewer} {
		if errors.Is(err, other) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// sinkError is an error of who takes the rows or decides on trust, not of the
// file.
type sinkError struct{ err error }

func (e sinkError) Error() string { return e.err.Error() }

func asSinkError(err error) error {
	if err == nil {
		return nil
	}
	return sinkError{err}
}
