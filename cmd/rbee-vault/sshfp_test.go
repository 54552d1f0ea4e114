package main

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestParseSSHFP(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, row := range []struct {
		line, name string
		algorithm  int
		ok         bool
	}{
		{"hive-01 IN SSHFP 4 2 " + hash, "hive-01", 4, true},
		{"hive-01.example.org. 3600 IN sshfp 1 2 " + strings.ToUpper(hash[:30]) + " " + hash[30:] + " ; a comment\n", "hive-01.example.org", 1, true},
		{"hive-01 SSHFP 3 2 " + hash, "hive-01", 3, true},
		{"hive-01 IN SSHFP 4 1 " + hash[:40], "", 0, true},
		{"; hive-01 IN SSHFP 4 2 " + hash, "", 0, true},
		{"hive-01 IN SSHFP 4 2 " + hash[2:], "", 0, false},
		{"hive-01 IN SSHFP 4 2 " + hash[1:] + "x", "", 0, false},
		{"hive-01 IN SSHFP 4 3 " + hash, "", 0, false},
		{"hive-01 IN SSHFP x 2 " + hash, "", 0, false},
		{"hive-01 IN SSHFP 4", "", 0, false},
	} {
		name, r, err := parseSSHFP(row.line)
		if name != row.name || r.algorithm != row.algorithm || (err == nil) != row.ok || errors.Is(err, errNotSSHFP) {
			t.Errorf("%q: %q, %d, %v", row.line, name, r.algorithm, err)
		}
		if name != "" && hex.EncodeToString(r.hash[:]) != hash {
			t.Errorf("%q: hash %x", row.line, r.hash)
		}
	}
	for _, line := range []string{"", "\n", "# a comment", "SSHFP", "hive-01 ssh-ed25519 AAAA SSHFP", "hive-01 ssh-ed25519 AAAA"} {
		if _, _, err := parseSSHFP(line); !errors.Is(err, errNotSSHFP) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzParseSSHFP(f *testing.F) {
	f.Add("hive-01 3600 IN SSHFP 4 2 " + strings.Repeat("ab", 32))
	f.Fuzz(func(t *testing.T, line string) {
		name, r, err := parseSSHFP(line)
		if err != nil && (name != "" || r != sshfp{}) {
			t.Errorf("%q: %q, %v with an error", line, name, r)
		}
	})
}
