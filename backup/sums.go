package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
)

// sum is a line of SHA256SUMS.
type sum struct {
	name string
	hash string // 64 hex digits
}

// encodeSums returns the text of SHA256SUMS, as `sha256sum -c` reads it.
func encodeSums(sums []sum) []byte {
	var b bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&b, "%s  %s\n", s.hash, s.name)
	}
	return b.Bytes()
}

// parseSums parses SHA256SUMS and checks that it lists the members of [layout] in
// their order. The error matches [ErrDamaged].
func parseSums(data []byte) ([]sum, error) {
	var sums []sum
	for line := range strings.Lines(string(data)) {
		hash, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if b, err := hex.DecodeString(hash); !ok || err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%w: %s has a malformed line", ErrDamaged, memberSums)
		}
		sums = append(sums, sum{name: name, hash: hash})
	}
	if !bytes.Equal(encodeSums(sums), data) {
		return nil, fmt.Errorf("%w: %s is not as it was written", ErrDamaged, memberSums)
	}
	keys := keysListed(sums)
	if keys < 0 {
		return nil, fmt.Errorf("%w: %s lists too few members", ErrDamaged, memberSums)
	}
	for i, m := range layout(keys) {
		if sums[i].name != m.name {
			return nil, fmt.Errorf("%w: %s lists %q in place of %q", ErrDamaged, memberSums, sums[i].name, m.name)
		}
	}
	return sums, nil
}

// keysListed returns how many of the members listed are private keys. It is
// negative where other members are missing.
func keysListed(sums []sum) int { return len(sums) - len(layout(0)) }

// hashOf returns the SHA-256 in hex.
func hashOf(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// measure counts and hashes what is written to w through it.
type measure struct {
	w    io.Writer
	size int64
	sum  hash.Hash
}

func newMeasure(w io.Writer) *measure { return &measure{w: w, sum: sha256.New()} }

// Write implements [io.Writer].
func (m *measure) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.size += int64(n)
	m.sum.Write(p[:n])
	return n, err
}

// hash returns the SHA-256 of what was written so far, in hex.
func (m *measure) hash() string { return hex.EncodeToString(m.sum.Sum(nil)) }
