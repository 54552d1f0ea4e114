package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// TestMain builds the command for all tests that run it. It builds without the race
// detector, which makes a passphrase take half a minute.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "rbee-vault")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if out, err := exec.Command("go", "build", "-o", dir, ".").CombinedOutput(); err != nil {
			panic(fmt.Sprintf("build the command: %v\n%s", err, out))
		}
		os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		return m.Run()
	}())
}

// planted is in every host name and key that the scripts store. No file of a vault and no
// temporary file may hold it.
const planted = "planted"

func TestScripts(t *testing.T) { runScripts(t, "testdata/script", nil) }

// TestKeyringScripts runs against a real gnome-keyring on a bus of its own.
func TestKeyringScripts(t *testing.T) {
	session := keyringtest.Start(t)
	runScripts(t, "testdata/keyring", session.Env())
}

// TestKeePassXCScripts runs against a real KeePassXC, whose confirmations are off.
func TestKeePassXCScripts(t *testing.T) {
	session := keyringtest.StartKeePassXC(t, keyringtest.KeePassXC{})
	runScripts(t, "testdata/keepassxc", session.Env())
}

func runScripts(t *testing.T, dir string, env []string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: false,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			e.Setenv("HOME", home)
			e.Values[theTest{}] = e.T()
			for _, pair := range env {
				name, value, _ := strings.Cut(pair, "=")
				e.Setenv(name, value)
			}
			e.Defer(func() {
				for _, place := range []string{home, e.Getenv("TMPDIR")} {
					if err := findPlanted(place); err != nil {
						t.Error(err)
					}
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"octal":     octal,
			"flip":      flip,
			"substdout": substdout,
			"sshd":      startSSHD,
			"s3":        s3Server,
		},
	})
}

// theTest is the key of a script's testing.TB.
type theTest struct{}

// startSSHD is sshd NAME AUTHORIZED [OPTION...]: starts an sshd that lets in the keys of
// the file AUTHORIZED ("-" for none) on 127.0.0.1:$NAME_PORT, for the user $NAME_USER.
// NAME-ed.pub and NAME-rsa.pub are its host keys, $NAME_ED and $NAME_RSA their fingerprints.
// An option is a line of its configuration.
func startSSHD(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: sshd NAME AUTHORIZED [OPTION...]")
	}
	authorized := ""
	if args[1] != "-" {
		authorized = ts.ReadFile(args[1])
	}
	server := sshdtest.Start(ts.Value(theTest{}).(testing.TB), authorized, args[2:]...)
	name := args[0]
	ts.Setenv(name+"_PORT", server.Port)
	ts.Setenv(name+"_USER", server.User)
	for i, kind := range []string{"ED", "RSA"} {
		line, err := os.ReadFile(server.PublicFiles[i])
		ts.Check(err)
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		ts.Check(err)
		ts.Setenv(name+"_"+kind, ssh.FingerprintSHA256(key))
		ts.Check(os.WriteFile(ts.MkAbs(name+"-"+strings.ToLower(kind)+".pub"), line, 0o600))
	}
}

// findPlanted looks for the planted word in every file below a directory.
func findPlanted(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(planted)) {
			return errors.New("planted text is in " + path)
		}
		return err
	})
}

// exits CODE COMMAND...: runs rbee-vault and expects its exit code. Output is
// matched with stdout and stderr, as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
	if err := checkOutput(args[2:], code, ts.ReadFile("stdout"), ts.ReadFile("stderr")); err != nil {
		ts.Fatalf("%v", err)
	}
}

// octal MODE FILE...: expects the permissions.
func octal(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := strconv.FormatInt(int64(info.Mode().Perm()), 8); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", file, got, args[0])
		}
	}
}

// flip FILE OFFSET: changes one byte; a negative offset counts from the end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 0x40
	ts.Check(os.WriteFile(path, data, 0o600))
}

// substdout VAR: puts the last standard output, trimmed, into a variable.
func substdout(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
