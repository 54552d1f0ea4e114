package backup

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	agetest "c2sp.org/CCTV/age"
	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestAgeVectors reads the test vectors of age's format as backups. None is one, so each is
// refused: as damaged, or because no identity opens it. What decrypts has the right content.
func TestAgeVectors(t *testing.T) {
	err := fs.WalkDir(agetest.Vectors, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		t.Run(name, func(t *testing.T) { testVector(t, name) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testVector(t *testing.T, name string) {
	data, err := fs.ReadFile(agetest.Vectors, name)
	if err != nil {
		t.Fatal(err)
	}
	head, file, _ := bytes.Cut(data, []byte("\n\n"))
	expect, payload, armored := "", "", false
	var identities []age.Identity
	for line := range strings.Lines(string(head)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch key {
		case "expect":
			expect = value
		case "payload":
			payload = value
		case "armored":
			armored = true
		case "identity":
			parsed, err := age.ParseIdentities(strings.NewReader(value))
			if err != nil {
				t.Fatal(err)
			}
			identities = append(identities, parsed...)
		case "passphrase":
			id, err := age.NewScryptIdentity(value)
			if err != nil {
				t.Fatal(err)
			}
			identities = append(identities, id)
		case "compressed":
			r, err := zlib.NewReader(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			if file, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if identities == nil { // the file is none for any
		identities = append(identities, newForgery(t).identity)
	}
	want := ErrDamaged
	if expect == "no match" && !armored {
		want = vault.ErrWrongKey
	}
	if _, err := Verify(t.Context(), bytes.NewReader(file), ReadOptions{Identities: identities}); !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
	content, err := decrypt(t.Context(), bytes.NewReader(file), identities)
	var got []byte
	if err == nil {
		got, err = io.ReadAll(content)
	}
	if success := expect == "success" && !armored; success != (err == nil) {
		t.Errorf("expect %s, got %v", expect, err)
	} else if sum := sha256.Sum256(got); success && hex.EncodeToString(sum[:]) != payload {
		t.Error("the content is not the vector's")
	}
}
