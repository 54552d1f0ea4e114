package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstallTimer: systemd finds no error in the units that are installed, and they give the
// backup few rights.
func TestInstallTimer(t *testing.T) {
	for name, tt := range map[string]struct {
		args      []string
		manager   string
		threshold string // from 0 (no rights) to 100; much of it is only for the system's manager
		lines     []string
	}{
		"user": {
			[]string{"--identity", "/run/media/key.txt"}, "--user", "64",
			[]string{"Environment=RBEE_VAULT_DB=DIR/v.db RBEE_VAULT_IDENTITY_FILE=/run/media/key.txt", "OnCalendar=daily"},
		},
		"system": {
			[]string{"--system", "--run-as", "daemon", "--on-calendar", "Mon..Fri 12:00", "--credential", "/etc/credstore.encrypted/other"}, "--system", "22",
			[]string{"User=daemon", "LoadCredentialEncrypted=rbee-vault:/etc/credstore.encrypted/other", "Environment=RBEE_VAULT_DB=DIR/v.db", "OnCalendar=Mon..Fri 12:00"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			install := append([]string{"backup", "install-timer", "--db", filepath.Join(dir, "v.db"), "--dir", dir}, tt.args...)
			for range 2 { // the second time nothing is to be replaced
				if code, _, stderr := command(t, []string{"HOME=" + dir}, install...); code != exitOK || !strings.Contains(stderr, "enable --now rbee-vault-backup.timer") {
					t.Fatalf("exit code %d: %s", code, stderr)
				}
			}
			var units string
			files := []string{filepath.Join(dir, "rbee-vault-backup.service"), filepath.Join(dir, "rbee-vault-backup.timer")}
			for _, file := range files {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				units += string(data)
				if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
					t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
				}
			}
			program, err := exec.LookPath("rbee-vault")
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range append(tt.lines, "ExecStart="+program+" --no-input backup --if-changed", "LimitCORE=0", "NoNewPrivileges=yes") {
				if !strings.Contains(units, "\n"+strings.ReplaceAll(line, "DIR", dir)+"\n") {
					t.Errorf("the units lack %q", line)
				}
			}
			analyze := func(args ...string) {
				t.Helper()
				cmd := exec.Command("systemd-analyze", append([]string{tt.manager}, args...)...)
				cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
				if out, err := cmd.CombinedOutput(); err != nil || args[0] == "verify" && len(out) > 0 {
					t.Errorf("%v: %v: %s", args, err, out)
				}
			}
			analyze(append([]string{"verify"}, files...)...)
			analyze("security", "--offline=true", "--threshold="+tt.threshold, files[0])

			// A unit that somebody changed is not replaced without a question.
			if err := os.WriteFile(files[1], []byte("changed"), 0o644); err != nil {
				t.Fatal(err)
			}
			if code, _, _ := command(t, []string{"HOME=" + dir}, append(install, "--no-input")...); code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			if code, _, _ := command(t, []string{"HOME=" + dir}, append(install, "--yes")...); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
	for _, args := range [][]string{
		{"--on-calendar", "never"},
		{"--on-calendar", "daily\nUser=root"},
		{"--system", "--run-as", "ops\nUser=root"},
		{"--db", "/home/a b/v.db"},
	} {
		code, _, stderr := command(t, []string{"HOME=" + t.TempDir()}, append([]string{"backup", "install-timer", "--print"}, args...)...)
		if code != exitInvalid {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
}
