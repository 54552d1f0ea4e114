package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Caps on what is held in memory. The first three members are read before the
// signature vouches for the rest.
const (
	maxSums      = 16 << 20 // over 150,000 keys
	maxSignature = 16 << 10
	maxManifest  = 64 << 10
	maxReadme    = 64 << 10
	maxKnownHost = 32 << 10 // a line of known_hosts
	maxLine      = 1 << 20
	maxPEM       = 64 << 10
	maxSigners   = 10_000 // rotations
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
	a := &archiveReader{tar: tar.NewReader(zipped)}
	m, err := a.read(ctx, opts, to)
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

// archiveReader reads the members in their one order.
type archiveReader struct {
	tar  *tar.Reader
	sums []sum // those still to come
}

func (a *archiveReader) read(ctx context.Context, opts ReadOptions, to sink) (Manifest, error) {
	m, claim, err := a.readHead()
	if err != nil {
		return Manifest{}, err
	}
	if err := opts.Trust(ctx, claim); err != nil {
		return Manifest{}, asSinkError(err)
	}
	counts := Counts{Signers: m.Counts.Signers} // compared by readHead
	var head vault.AuditHead
	var keys []registry.SSHKey

	if err := a.member(memberReadme, drainUpTo(maxReadme)); err != nil {
		return Manifest{}, err
	}
	err = readLines(a, memberNodes, &counts.Nodes, m.Counts.Nodes, func(n registry.Node) error {
		return asSinkError(to.node(ctx, n))
	})
	if err != nil {
		return Manifest{}, err
	}
	err = readLines(a, memberSSHKeys, &counts.SSHKeys, m.Counts.SSHKeys, func(k registry.SSHKey) error {
		keys = append(keys, k)
		return nil
	})
	if err != nil {
		return Manifest{}, err
	}
	for i, k := range keys {
		err := a.member(memberPEM(i+1), func(r io.Reader) error {
			private, err := readAll(r, maxPEM)
			defer clear(private)
			if err != nil {
				return err
			}
			return asSinkError(to.sshKey(ctx, k, private))
		})
		if err != nil {
			return Manifest{}, err
		}
	}
	err = readLines(a, memberHostKeys, &counts.HostKeys, m.Counts.HostKeys, func(k registry.HostKey) error {
		return asSinkError(to.hostKey(ctx, k))
	})
	if err != nil {
		return Manifest{}, err
	}
	if err := a.member(memberKnownHosts, drainUpTo(m.Counts.HostKeys*maxKnownHost)); err != nil {
		return Manifest{}, err
	}
	err = readLines(a, memberAuditLog, &counts.AuditLog, m.Counts.AuditLog, func(r vault.AuditRow) error {
		if head, err = head.Follow(r); err != nil {
			return err
		}
		return asSinkError(to.auditRow(ctx, r))
	})
	if err != nil {
		return Manifest{}, err
	}
	err = readLines(a, memberSlots, &counts.Slots, m.Counts.Slots, func(s vault.Slot) error {
		return asSinkError(to.slot(ctx, s))
	})
	if err != nil {
		return Manifest{}, err
	}
	if _, err := a.tar.Next(); err != io.EOF {
		if err != nil {
			return Manifest{}, err
		}
		return Manifest{}, fmt.Errorf("%w: a member too many", ErrDamaged)
	}
	if counts != m.Counts {
		return Manifest{}, fmt.Errorf("%w: it holds %+v, its manifest says %+v", ErrDamaged, counts, m.Counts)
	}
	if head.Seq != m.AuditSeq || hex.EncodeToString(head.Hash[:]) != m.AuditHash {
		return Manifest{}, fmt.Errorf("%w: its audit log does not end as its manifest says", ErrDamaged)
	}
	return m, nil
}

// readHead reads the sums, their signature, the manifest and the signers, and verifies
// that the manifest's signer made the signature.
func (a *archiveReader) readHead() (Manifest, Claim, error) {
	sums, err := a.small(memberSums, maxSums)
	if err != nil {
		return Manifest{}, Claim{}, err
	}
	signature, err := a.small(memberSignature, maxSignature)
	if err != nil {
		return Manifest{}, Claim{}, err
	}
	if a.sums, err = parseSums(sums); err != nil {
		return Manifest{}, Claim{}, err
	}
	var data []byte
	err = a.member(memberManifest, func(r io.Reader) (err error) {
		data, err = readAll(r, maxManifest)
		return err
	})
	if err != nil {
		return Manifest{}, Claim{}, err
	}
	m, err := parseManifest(data)
	if err != nil {
		return Manifest{}, Claim{}, err
	}
	if err := vault.VerifySignature(sums, signature, m.Signer, vault.SignatureNamespace); err != nil {
		return Manifest{}, Claim{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var count int64
	var signers []vault.Signer
	err = readLines(a, memberSigners, &count, min(m.Counts.Signers, maxSigners), func(s vault.Signer) error {
		signers = append(signers, s)
		return nil
	})
	if err != nil {
		return Manifest{}, Claim{}, err
	}
	if count != m.Counts.Signers || count == 0 || signers[count-1].PublicKey != m.Signer {
		return Manifest{}, Claim{}, fmt.Errorf("%w: its signer is not the newest of %s", ErrDamaged, memberSigners)
	}
	claim := Claim{VaultID: m.VaultID, Signer: m.SignerFingerprint(), SumsSHA256: hashOf(sums)}
	for _, line := range vault.Predecessors(m.VaultID, signers) {
		if line != m.Signer {
			claim.Predecessors = append(claim.Predecessors, vault.Fingerprint(line))
		}
	}
	return m, claim, nil
}

// next moves to the member that must come now.
func (a *archiveReader) next(name string) error {
	h, err := a.tar.Next()
	if err == io.EOF {
		return fmt.Errorf("%w: %s is missing", ErrDamaged, name)
	} else if err != nil {
		return err
	}
	if h.Name != name || h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR {
		return fmt.Errorf("%w: %q stands where %s belongs", ErrDamaged, h.Name, name)
	}
	return nil
}

// small reads one of the two members that no sum covers.
func (a *archiveReader) small(name string, max int64) ([]byte, error) {
	if err := a.next(name); err != nil {
		return nil, err
	}
	return readAll(a.tar, max)
}

// member reads a member to its end and compares its sum.
func (a *archiveReader) member(name string, use func(io.Reader) error) error {
	if err := a.next(name); err != nil {
		return err
	}
	if len(a.sums) == 0 || a.sums[0].name != name {
		return fmt.Errorf("%w: %s is not listed in %s", ErrDamaged, name, memberSums)
	}
	h := sha256.New()
	r := io.TeeReader(a.tar, h)
	if err := use(r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := drain(r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != a.sums[0].hash {
		return fmt.Errorf("%w: %s is not what %s says", ErrDamaged, name, memberSums)
	}
	a.sums = a.sums[1:]
	return nil
}

func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// drainUpTo reads what nobody looks at. It is not held; the cap is on the time that
// a few bytes may expand to.
func drainUpTo(max int64) func(io.Reader) error {
	return func(r io.Reader) error {
		n, err := io.Copy(io.Discard, io.LimitReader(r, max+1))
		if err == nil && n > max {
			err = fmt.Errorf("%w: over %d bytes", ErrDamaged, max)
		}
		return err
	}
}

func readAll(r io.Reader, max int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%w: over %d bytes", ErrDamaged, max)
	}
	return data, err
}

// readLines parses a member of one JSON value a line, of which there are at most
// max: that is signed, the lines so far are not. What is parsed must encode
// to the same line again.
func readLines[T any](a *archiveReader, name string, count *int64, max int64, use func(T) error) error {
	return a.member(name, func(r io.Reader) error {
		lines := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := readLine(lines)
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if *count++; *count > max {
				return fmt.Errorf("%w: more lines than the manifest says", ErrDamaged)
			}
			var v T
			if err := json.Unmarshal(line, &v); err != nil {
				return fmt.Errorf("line %d: %w", *count, err)
			}
			if again, err := wire.Marshal(v); err != nil || !bytes.Equal(again, line) {
				return fmt.Errorf("%w: line %d is not as it was written", ErrDamaged, *count)
			}
			if err := use(v); err != nil {
				return fmt.Errorf("line %d: %w", *count, err)
			}
		}
	})
}

// readLine returns the next line without its end, or [io.EOF]. A last line
// without an end is an error.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		chunk, err := r.ReadSlice('\n')
		line = append(line, chunk...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("%w: a line of over %d bytes", ErrDamaged, maxLine)
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(line) > 0:
			return nil, fmt.Errorf("%w: its last line has no end", ErrDamaged)
		case err != nil:
			return nil, err
		default:
			return []byte(strings.TrimSuffix(string(line), "\n")), nil
		}
	}
}
