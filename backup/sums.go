package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// sum is a line of SHA256SUMS.
type sum struct {
	name string
	hash string // 64 hex digits
}

// encodeSums gives the text that `sha256sum -c` takes.
func encodeSums(sums []sum) []byte {
	var b bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&b, "%s  %s\n", s.hash, s.name)
	}
	return b.Bytes()
}

// parseSums parses SHA256SUMS and checks that it lists the members of the
// format in their order. The error matches [ErrDamaged].
func parseSums(data []byte) ([]sum, error) {
	var sums []sum
	for line := range strings.Lines(string(data)) {
		hash, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if b, err := hex.DecodeString(hash); !ok || err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%w: %s has a line that is none", ErrDamaged, memberSums)
		}
		sums = append(sums, sum{name: name, hash: hash})
	}
	if !bytes.Equal(encodeSums(sums), data) {
		return nil, fmt.Errorf("%w: %s is not as it was written", ErrDamaged, memberSums)
	}
	fixed := []string{memberManifest, memberSigners, memberReadme, memberNodes, memberSSHKeys, memberHostKeys, memberKnownHosts, memberAuditLog, memberSlots}
	keys := len(sums) - len(fixed)
	if keys < 0 {
		return nil, fmt.Errorf("%w: %s lists too few members", ErrDamaged, memberSums)
	}
	want := append([]string(nil), fixed[:5]...)
	for n := range keys {
		want = append(want, memberPEM(n+1))
	}
	want = append(want, fixed[5:]...)
	for i, s := range sums {
		if s.name != want[i] {
			return nil, fmt.Errorf("%w: %s lists %q where %q belongs", ErrDamaged, memberSums, s.name, want[i])
		}
	}
	return sums, nil
}

// measure counts and hashes what is written to it, and passes it on.
type measure struct {
	w    io.Writer
	size int64
	sum  hasher
}

type hasher interface {
	io.Writer
	Sum([]byte) []byte
}

func newMeasure(w io.Writer) *measure { return &measure{w: w, sum: sha256.New()} }

// Write implements [io.Writer].
func (m *measure) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.size += int64(n)
	m.sum.Write(p[:n])
	return n, err
}

func (m *measure) hash() string { return hex.EncodeToString(m.sum.Sum(nil)) }
