package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestParseSigner: a sheet must have a whole fingerprint; the name of a file is refused.
func TestParseSigner(t *testing.T) {
	fingerprint := "SHA256:" + strings.Repeat("a", 43)
	sheet := filepath.Join(t.TempDir(), "sheet")
	for text, want := range map[string]string{
		"# vault id: v\n# signer: " + fingerprint + "\n":               fingerprint,
		"# vault id: v\n# signer: " + fingerprint[:len(fingerprint)-1]: "", // cut
		"# vault id: v\n# signer: " + sheet + "\n":                     "", // itself
		"# vault id: v\n":                    "",
		"# vault id: v\n# signer: SHA256:\n": "",
	} {
		if err := os.WriteFile(sheet, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := parseSigner(sheet)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}
