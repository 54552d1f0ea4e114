package vault

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// KeyID is the id of a key. It is the SQLCipher salt, the first 16 bytes of the database file.
// Every place that stores the key stores it under this id.
type KeyID [16]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID parses 32 lower-case hex digits, or returns [ErrInvalid].
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	if !parseHex(id[:], s) {
		return KeyID{}, fmt.Errorf("%w: a key id has 32 lower-case hex digits", ErrInvalid)
	}
	return id, nil
}

// peekKeyID is readKeyID for a file that this process may have open. If it has, it returns
// [ErrAlreadyOpen].
func peekKeyID(path string) (KeyID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return KeyID{}, err
	}
	var id KeyID
	err = sqlcipher.Unclaimed(info, func() (err error) {
		id, err = readKeyID(path)
		return err
	})
	return id, err
}

// readKeyID reads the key id of the database file. No connection of this process may have the
// file open: closing the file drops the process's locks.
func readKeyID(path string) (KeyID, error) {
	salt, err := sqlcipher.ReadSalt(path)
	if errors.Is(err, sqlcipher.ErrNotRegular) {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return KeyID(salt), err
}

// Key is a root key with its id. It is safe for concurrent use until wiped.
type Key struct {
	id   KeyID
	root [32]byte
}

// generateKey makes a new root key under a new id.
func generateKey() *Key {
	k := new(Key)
	rand.Read(k.id[:])
	rand.Read(k.root[:])
	return k
}

// The purposes of keys derived from the root key.
const (
	purposeSQLCipher = "sqlcipher"
	purposeSeal      = "seal"
	purposeDigest    = "digest"
	purposeCheck     = "check"
)

// derive returns 32 bytes for a purpose, by HKDF-SHA256 with the key id as
// salt. The caller wipes them.
func (k *Key) derive(purpose string) []byte {
	out, err := hkdf.Key(sha256.New, k.root[:], k.id[:], "rbee-vault/v1/"+purpose, 32)
	if err != nil {
		panic(err) // only for lengths that HKDF refuses
	}
	return out
}

// check is a public value. It shows whether two keys are the same without opening anything.
func (k *Key) check() string {
	c := k.derive(purposeCheck)
	defer wipe(c)
	return hex.EncodeToString(c[:16])
}

const keyLinePrefix = "rbk1"

// line is the only text form of the key: rbk1:<key id>:<root key>:<check>. The caller wipes it.
func (k *Key) line() []byte {
	b := make([]byte, 0, keyLineLen)
	b = append(b, keyLinePrefix+":"...)
	b = hex.AppendEncode(b, k.id[:])
	b = append(b, ':')
	b = hex.AppendEncode(b, k.root[:])
	b = append(b, ':')
	return append(b, k.check()...)
}

const keyLineLen = len(keyLinePrefix) + 1 + 32 + 1 + 64 + 1 + 32

// parseKeyLine parses a key line and verifies its check value. The error contains nothing of
// the line.
func parseKeyLine(line []byte) (*Key, error) {
	fields := bytes.Split(line, []byte(":"))
	if len(line) != keyLineLen || len(fields) != 4 || string(fields[0]) != keyLinePrefix {
		return nil, fmt.Errorf("%w: not a key line", ErrInvalid)
	}
	k := new(Key)
	if !parseHex(k.id[:], string(fields[1])) || !parseHex(k.root[:], string(fields[2])) {
		return nil, fmt.Errorf("%w: not a key line", ErrInvalid)
	}
	if subtle.ConstantTimeCompare([]byte(k.check()), fields[3]) != 1 {
		k.wipe()
		return nil, fmt.Errorf("%w: the check value of a key line does not match its key", ErrInvalid)
	}
	return k, nil
}

// wipe overwrites the root key. It is best effort: Go may have copied it.
func (k *Key) wipe() { wipe(k.root[:]) }

func wipe(b []byte) { clear(b) }

// parseHex decodes lower-case hex that must fill dst exactly. If it returns false, dst is of no
// use.
func parseHex(dst []byte, s string) bool {
	const digits = "0123456789abcdef"
	if len(s) != hex.EncodedLen(len(dst)) {
		return false
	}
	var wrong byte
	for i := range dst {
		for _, c := range [2]byte{s[2*i], s[2*i+1]} {
			value := (c&0xf + c>>6*9) & 0xf // without a branch that the processor cannot predict
			wrong |= digits[value] ^ c
			dst[i] = dst[i]<<4 | value
		}
	}
	return wrong == 0
}
