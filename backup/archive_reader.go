package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Limits of what is read, in bytes. The members up to signers.jsonl are read
// before the signer is trusted, so each needs a limit of its own.
const (
	maxSums      = 16 << 20 // over 150,000 keys
	maxSignature = 16 << 10
	maxManifest  = 64 << 10
	maxReadme    = 64 << 10
	maxKnownHost = 32 << 10 // one line of known_hosts
)

// maxNodeInKey is the longest name of a node in a line of ssh_keys.jsonl, with its quotes and
// comma.
const maxNodeInKey = 64 + 3

// maxSigners limits the lines of signers.jsonl: one for each rotation.
const maxSigners = 10_000

// maxSlots limits the lines of slots.jsonl.
const maxSlots = 10_000

// archiveReader reads and verifies the tar archive.
type archiveReader struct {
	tar   *tar.Reader
	trust func(context.Context, Claim) error
	to    sink
	// plugins is what plugin recipients of the slots are parsed with.
	plugins *plugin.ClientUI

	sums         []byte // SHA256SUMS
	signature    []byte // of sums
	manifestJSON []byte
	manifest     Manifest
	signers      []vault.Signer
	index        *index
	keys         []registry.SSHKey
	slots        []vault.Slot
	head         vault.AuditHead // after the last audit row read
	counts       Counts          // of what was read
}

// read reads the archive to its end. It returns nil only when every member is
// what the signed SHA256SUMS says and all of them agree with the manifest.
func (a *archiveReader) read(ctx context.Context) (Manifest, error) {
	sums, err := a.readSums()
	if err != nil {
		return Manifest{}, err
	}
	for i, m := range layout(keysListed(sums)) {
		if err := a.readMember(ctx, m, sums[i].hash); err != nil {
			return Manifest{}, err
		}
	}
	if err := a.checkEnd(); err != nil {
		return Manifest{}, err
	}
	return a.manifest, nil
}

// readSums reads the two members before the others: SHA256SUMS and its
// signature. Neither is verified yet: the signer's key is in the manifest.
func (a *archiveReader) readSums() (sums []sum, err error) {
	for _, m := range []struct {
		name string
		max  int64
		data *[]byte
	}{
		{memberSums, maxSums, &a.sums},
		{memberSignature, maxSignature, &a.signature},
	} {
		if err := a.next(m.name); err != nil {
			return nil, err
		}
		if *m.data, err = readAll(a.tar, m.max); err != nil {
			return nil, err
		}
	}
	return parseSums(a.sums)
}

// readMember reads a member to its end and compares its hash.
func (a *archiveReader) readMember(ctx context.Context, m member, hash string) error {
	if err := a.next(m.name); err != nil {
		return err
	}
	h := sha256.New()
	r := io.TeeReader(a.tar, h)
	err := m.read(a, ctx, r)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != hash {
		return fmt.Errorf("%w: %s is not what %s says", ErrDamaged, m.name, memberSums)
	}
	if m.verified != nil {
		return m.verified(a, ctx)
	}
	return nil
}

// next moves to the next member, which must have this name.
func (a *archiveReader) next(name string) error {
	h, err := a.tar.Next()
	if err == io.EOF {
		return fmt.Errorf("%w: %s is missing", ErrDamaged, name)
	} else if err != nil {
		return err
	}
	if h.Name != name || h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR {
		return fmt.Errorf("%w: found %q in place of %s", ErrDamaged, h.Name, name)
	}
	return nil
}

// checkEnd checks that no member follows, and that the members held what the
// manifest says.
func (a *archiveReader) checkEnd() error {
	if h, err := a.tar.Next(); err == nil {
		return fmt.Errorf("%w: %q follows the last member", ErrDamaged, h.Name)
	} else if err != io.EOF {
		return err
	}
	if a.counts != a.manifest.Counts {
		return fmt.Errorf("%w: it holds %+v, its manifest says %+v", ErrDamaged, a.counts, a.manifest.Counts)
	}
	if a.head.Seq != a.manifest.AuditSeq || hex.EncodeToString(a.head.Hash[:]) != a.manifest.AuditHash {
		return fmt.Errorf("%w: its audit log does not end as its manifest says", ErrDamaged)
	}
	return nil
}

func (a *archiveReader) readManifest(_ context.Context, r io.Reader) (err error) {
	a.manifestJSON, err = readAll(r, maxManifest)
	return err
}

// verifySignature parses the manifest and verifies that its signer signed
// SHA256SUMS.
func (a *archiveReader) verifySignature(context.Context) (err error) {
	if a.manifest, err = parseManifest(a.manifestJSON); err != nil {
		return err
	}
	if err := vault.VerifySignature(a.sums, a.signature, a.manifest.Signer, vault.SignatureNamespace); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func (a *archiveReader) readSigners(_ context.Context, r io.Reader) error {
	return readLines(r, &a.counts.Signers, min(a.manifest.Counts.Signers, maxSigners), func(s vault.Signer) error {
		a.signers = append(a.signers, s)
		return nil
	})
}

// trustSigner asks whether the signer is trusted. Nothing is given to the sink
// before the answer.
func (a *archiveReader) trustSigner(ctx context.Context) error {
	m := a.manifest
	n := len(a.signers)
	if int64(n) != m.Counts.Signers || n == 0 || a.signers[n-1].PublicKey != m.Signer {
		return fmt.Errorf("%w: its signer is not the newest of %s", ErrDamaged, memberSigners)
	}
	claim := Claim{VaultID: m.VaultID, Signer: m.SignerFingerprint(), Sequence: m.Sequence, Created: m.Created, SumsSHA256: hashOf(a.sums)}
	for _, line := range vault.Predecessors(m.VaultID, a.signers) {
		if line != m.Signer {
			claim.Predecessors = append(claim.Predecessors, vault.Fingerprint(line))
		}
	}
	a.index = newIndex(m.Counts)
	return asSinkError(a.trust(ctx, claim))
}

func (a *archiveReader) skipReadme(_ context.Context, r io.Reader) error {
	return discardUpTo(r, maxReadme)
}

func (a *archiveReader) readNodes(ctx context.Context, r io.Reader) error {
	return readLines(r, &a.counts.Nodes, a.manifest.Counts.Nodes, func(n registry.Node) error {
		if err := a.index.addNode(n); err != nil {
			return err
		}
		return asSinkError(a.to.node(ctx, n))
	})
}

func (a *archiveReader) checkJumps(context.Context) error {
	a.index.end()
	if err := a.index.checkJumps(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, memberNodes, err)
	}
	return nil
}

// readSSHKeys keeps the keys: each goes to the sink with its private key.
func (a *archiveReader) readSSHKeys(_ context.Context, r io.Reader) error {
	longest := maxLine + a.counts.Nodes*maxNodeInKey
	return readLongLines(r, longest, &a.counts.SSHKeys, a.manifest.Counts.SSHKeys, func(k registry.SSHKey) error {
		a.keys = append(a.keys, k)
		return a.index.addSSHKey(k)
	})
}

// checkKeys checks that there is a key for each private key that SHA256SUMS
// lists.
func (a *archiveReader) checkKeys(listed int) error {
	a.index.end()
	if len(a.keys) != listed {
		return fmt.Errorf("%w: %s has %d keys, %s lists %d", ErrDamaged, memberSSHKeys, len(a.keys), memberSums, listed)
	}
	return nil
}

// readPrivateKey reads the private key at index i of ssh_keys.jsonl.
func (a *archiveReader) readPrivateKey(ctx context.Context, r io.Reader, i int) error {
	private, err := readAll(r, registry.MaxPEM)
	defer clear(private)
	if err != nil {
		return err
	}
	if err := a.keys[i].Matches(private); err != nil {
		return err
	}
	return asSinkError(a.to.sshKey(ctx, a.keys[i], private))
}

func (a *archiveReader) readRotations(ctx context.Context, r io.Reader) error {
	return readLines(r, &a.counts.Rotations, a.manifest.Counts.Rotations, func(k registry.KeyRotation) error {
		if err := a.index.addRotation(k); err != nil {
			return err
		}
		return asSinkError(a.to.keyRotation(ctx, k))
	})
}

func (a *archiveReader) readHostKeys(ctx context.Context, r io.Reader) error {
	return readLines(r, &a.counts.HostKeys, a.manifest.Counts.HostKeys, func(k registry.HostKey) error {
		if err := a.index.addHostKey(k); err != nil {
			return err
		}
		return asSinkError(a.to.hostKey(ctx, k))
	})
}

func (a *archiveReader) skipKnownHosts(_ context.Context, r io.Reader) error {
	return discardUpTo(r, a.manifest.Counts.HostKeys*maxKnownHost)
}

func (a *archiveReader) readTargets(ctx context.Context, r io.Reader) error {
	return readLines(r, &a.counts.Targets, a.manifest.Counts.Targets, func(j targetJSON) error {
		t, err := j.target()
		if err != nil {
			return err
		}
		defer clear(t.Secret)
		if err := a.index.follow(t.Name); err != nil {
			return err
		}
		return asSinkError(a.to.target(ctx, t))
	})
}

func (a *archiveReader) readSettings(ctx context.Context, r io.Reader) error {
	return readLines(r, &a.counts.Settings, a.manifest.Counts.Settings, func(s registry.Setting) error {
		if err := a.index.follow(s.Name); err != nil {
			return err
		}
		return asSinkError(a.to.setting(ctx, s))
	})
}

// readAuditLog checks that each row continues the one before.
func (a *archiveReader) readAuditLog(ctx context.Context, r io.Reader) error {
	return readLines(r, &a.counts.AuditLog, a.manifest.Counts.AuditLog, func(row vault.AuditRow) (err error) {
		if a.head, err = a.head.Follow(row); err != nil {
			return err
		}
		return asSinkError(a.to.auditRow(ctx, row))
	})
}

func (a *archiveReader) readSlots(_ context.Context, r io.Reader) error {
	return readLines(r, &a.counts.Slots, min(a.manifest.Counts.Slots, maxSlots), func(s vault.Slot) error {
		a.slots = append(a.slots, s)
		return nil
	})
}

// checkSlots checks that a vault may have these slots.
func (a *archiveReader) checkSlots(ctx context.Context) error {
	if err := vault.ValidateSlots(ctx, a.slots, a.plugins); errors.Is(err, vault.ErrPlugin) {
		return asSinkError(err) // it says nothing about the file
	} else if err != nil {
		return fmt.Errorf("%s: %w", memberSlots, err)
	}
	return asSinkError(a.to.slots(ctx, a.slots))
}

// endMember is the end of a member whose rows the index has seen.
func (a *archiveReader) endMember(context.Context) error {
	a.index.end()
	return nil
}

// discardUpTo reads a member whose content is not used. The limit is on the
// time: a few bytes of gzip may expand to very many.
func discardUpTo(r io.Reader, max int64) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, max+1))
	if err == nil && n > max {
		err = tooLong(max)
	}
	return err
}

func readAll(r io.Reader, max int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(data)) > max {
		err = tooLong(max)
	}
	return data, err
}

func tooLong(max int64) error { return fmt.Errorf("%w: over %d bytes", ErrDamaged, max) }
