package rootkey

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// goldenKey never changes: root 00 01 02 ..., id a0 a1 a2 ...
func goldenKey() *Key {
	k := new(Key)
	for i := range k.root {
		k.root[i] = byte(i)
	}
	for i := range k.id {
		k.id[i] = byte(0xa0 + i)
	}
	return k
}

const goldenKeyLine = "rbk1:a0a1a2a3a4a5a6a7a8a9aaabacadaeaf:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f:" + goldenCheck

const goldenCheck = "fec83a73b4b186794323583370102eae"

func TestKeyLineGolden(t *testing.T) {
	if line := string(goldenKey().Line()); line != goldenKeyLine {
		t.Errorf("key line\n%s, want\n%s", line, goldenKeyLine)
	}
}

// TestDeriveAsOpenSSL: the commands in the manual give the same keys.
func TestDeriveAsOpenSSL(t *testing.T) {
	k := goldenKey()
	for _, purpose := range []Purpose{SQLCipher, Seal, check} {
		out, err := exec.Command("openssl", "kdf", "-keylen", "32",
			"-kdfopt", "digest:SHA256",
			"-kdfopt", "hexkey:"+hex.EncodeToString(k.root[:]),
			"-kdfopt", "hexsalt:"+k.id.String(),
			"-kdfopt", "info:rbee-vault/v1/"+string(purpose),
			"HKDF").CombinedOutput()
		if err != nil {
			t.Fatalf("openssl: %v: %s", err, out)
		}
		want := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(string(out)), ":", ""))
		if got := hex.EncodeToString(k.Derive(purpose)); got != want {
			t.Errorf("%s: %s, openssl gives %s", purpose, got, want)
		}
	}
}

func TestParseKeyLineRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"empty":        "",
		"line break":   goldenKeyLine + "\n",
		"space":        " " + goldenKeyLine[1:],
		"other prefix": "rbk2" + goldenKeyLine[4:],
		"upper case":   "rbk1" + strings.ToUpper(goldenKeyLine[4:]),
		"cut":          goldenKeyLine[:len(goldenKeyLine)-1],
		"extra field":  goldenKeyLine[:len(goldenKeyLine)-2] + ":0",
		"other root":   strings.Replace(goldenKeyLine, "0001", "0002", 1),
		"other id":     strings.Replace(goldenKeyLine, "a0a1", "a0a0", 1),
		"other check":  goldenKeyLine[:len(goldenKeyLine)-1] + "0",
		"colons":       strings.Repeat(":", lineLen),
	} {
		if k, err := ParseLine([]byte(line)); !errors.Is(err, wire.ErrInvalid) || k != nil {
			t.Errorf("%s: %v, %v; want nil, ErrInvalid", name, k, err)
		} else if strings.Contains(err.Error(), "0001") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func FuzzParseKeyLine(f *testing.F) {
	for _, seed := range []string{goldenKeyLine, string(Generate().Line()), goldenKeyLine[:40], "rbk1:::", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		k, err := ParseLine(line)
		if err != nil {
			if k != nil || !errors.Is(err, wire.ErrInvalid) {
				t.Errorf("%v, %v; want nil, ErrInvalid", k, err)
			}
			return
		}
		if again := k.Line(); !bytes.Equal(again, line) {
			t.Errorf("%q comes back as %q", line, again)
		}
	})
}
