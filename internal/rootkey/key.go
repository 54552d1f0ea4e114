// Package rootkey holds the root key of a vault: its id, its one text form, the keys that are
// derived from it, and how it is wrapped for a recipient.
//
// No other code sees the bytes of a root key. What leaves this package is a derived key, by
// [Key.Derive], and the key line, by [Key.Line]: for the keyring, and inside an age message. The
// caller wipes both.
package rootkey

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// ID is the id of a key. It is the SQLCipher salt, the first 16 bytes of the database file.
// Every place that stores the key stores it under this id.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID parses 32 lower-case hex digits, or returns [wire.ErrInvalid].
func ParseID(s string) (ID, error) {
	var id ID
	if !wire.ParseHex(id[:], s) {
		return ID{}, fmt.Errorf("%w: a key id has 32 lower-case hex digits", wire.ErrInvalid)
	}
	return id, nil
}

// Key is a root key with its id. It is safe for concurrent use until wiped.
type Key struct {
	id   ID
	root [32]byte
}

// Generate makes a new root key under a new id.
func Generate() *Key {
	k := new(Key)
	rand.Read(k.id[:])
	rand.Read(k.root[:])
	return k
}

// ID returns the key's id.
func (k *Key) ID() ID { return k.id }

// Purpose is what a key that is derived from the root key is for.
type Purpose string

// The purposes.
const (
	SQLCipher Purpose = "sqlcipher" // the pages of the database
	Seal      Purpose = "seal"      // single columns
	Digest    Purpose = "digest"    // the HMAC of rows
	check     Purpose = "check"     // the check value
)

// Derive returns 32 bytes for a purpose, by HKDF-SHA256 with the key id as
// salt. The caller wipes them.
func (k *Key) Derive(purpose Purpose) []byte {
	out, err := hkdf.Key(sha256.New, k.root[:], k.id[:], "rbee-vault/v1/"+string(purpose), 32)
	if err != nil {
		panic(err) // only for lengths that HKDF refuses
	}
	return out
}

// Check is a public value. It shows whether two keys are the same without opening anything.
func (k *Key) Check() string {
	c := k.Derive(check)
	defer clear(c)
	return hex.EncodeToString(c[:16])
}

const (
	linePrefix = "rbk1"
	lineLen    = len(linePrefix) + 1 + 32 + 1 + 64 + 1 + 32
)

// Line is the only text form of the key: rbk1:<key id>:<root key>:<check>. The caller wipes it.
func (k *Key) Line() []byte {
	b := make([]byte, 0, lineLen)
	b = append(b, linePrefix+":"...)
	b = hex.AppendEncode(b, k.id[:])
	b = append(b, ':')
	b = hex.AppendEncode(b, k.root[:])
	b = append(b, ':')
	return append(b, k.Check()...)
}

// ParseLine parses a key line and verifies its check value. The error is [wire.ErrInvalid] and
// contains nothing of the line.
func ParseLine(line []byte) (*Key, error) {
	fields := bytes.Split(line, []byte(":"))
	if len(line) != lineLen || len(fields) != 4 || string(fields[0]) != linePrefix {
		return nil, fmt.Errorf("%w: not a key line", wire.ErrInvalid)
	}
	k := new(Key)
	if !wire.ParseHex(k.id[:], string(fields[1])) || !wire.ParseHex(k.root[:], string(fields[2])) {
		return nil, fmt.Errorf("%w: not a key line", wire.ErrInvalid)
	}
	if subtle.ConstantTimeCompare([]byte(k.Check()), fields[3]) != 1 {
		k.Wipe()
		return nil, fmt.Errorf("%w: the check value of a key line does not match its key", wire.ErrInvalid)
	}
	return k, nil
}

// Wipe overwrites the root key. It is best effort: Go may have copied it.
func (k *Key) Wipe() { clear(k.root[:]) }
