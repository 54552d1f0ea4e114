package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestConfigFileAtOnce: of several that write the file at once, each keeps what the others wrote.
func TestConfigFileAtOnce(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home}
	var wg sync.WaitGroup
	for name, value := range map[string]string{"ssh-user": "ops", "ssh-port": "2222", "git-branch": "dev", "install-path": "/opt", "wait": "3s", "color": "never"} {
		wg.Go(func() {
			if code, _, stderr := command(t, env, "config", "set", "--here", name, value); code != exitOK {
				t.Error(stderr)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(filepath.Join(home, "rbee-vault", "config.toml"))
	if err != nil || strings.Count(string(text), "\n") != 6 {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestConfigFileOfAnother: a file of settings that another user owns is refused, and one behind a
// link of ours is changed in its place.
func TestConfigFileOfAnother(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home}
	dotfiles := filepath.Join(home, "dotfiles")
	kept := filepath.Join(dotfiles, "config.toml")
	path := filepath.Join(home, "rbee-vault", "config.toml")
	for _, err := range []error{
		os.Mkdir(filepath.Dir(path), 0o700),
		os.Mkdir(dotfiles, 0o700),
		os.WriteFile(kept, nil, 0o600),
		os.Symlink(kept, path),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := command(t, env, "config", "set", "wait", "3s"); code != exitOK {
		t.Error(stderr)
	}
	if link, err := os.Readlink(path); link != kept {
		t.Errorf("the link is %q, %v", link, err)
	}
	if code, stdout, _ := command(t, env, "config", "get", "wait"); code != exitOK || stdout != "3s\n" {
		t.Errorf("%d %q", code, stdout)
	}
	if err := os.Chmod(dotfiles, 0o777); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, env, "config", "get", "wait"); code != exitError || !strings.Contains(stderr, "dotfiles can be changed by others") {
		t.Errorf("%d %s", code, stderr)
	}
	if err := os.Chmod(dotfiles, 0o777|os.ModeSticky); err != nil { // as /tmp
		t.Fatal(err)
	}
	if code, _, stderr := command(t, env, "config", "get", "wait"); code != exitOK {
		t.Errorf("%d %s", code, stderr)
	}
	if os.Getuid() != 0 {
		t.Log("only root can give a file away")
		return
	}
	if err := os.Chown(kept, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, env, "config", "get", "wait"); code != exitError || !strings.Contains(stderr, "belongs to user 65534") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestWaitSetting: the setting says how long to wait for a lock, and the flag comes first.
func TestWaitSetting(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("RBEE_VAULT_WAIT", "3s")
	for _, c := range []struct {
		args []string
		want time.Duration
	}{{nil, 3 * time.Second}, {[]string{"--wait", "4s"}, 4 * time.Second}} {
		a := &app{}
		a.ui = newUI(t.Context(), a, io.Discard, io.Discard)
		root := newRoot(a)
		if err := root.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		if cfg, err := a.configWithoutIdentities(); err != nil || cfg.Wait != c.want {
			t.Errorf("%v, %v; want %v", cfg.Wait, err, c.want)
		}
	}
}

// TestNodeAddGivesWay: while node add waits for an answer, another process can have the vault for
// itself.
func TestNodeAddGivesWay(t *testing.T) {
	h := newHives(t)
	h.must("config", "set", "ssh-user", "ops")
	c := startOn(t, unix.Winsize{Row: 24, Col: 120}, append(h.env, "TERM=xterm"), "node", "add", "hive-01", "--git-repo", "https://example.org/r.git", "--install-path", "/opt")
	c.expect(`Host name or address \[hive-01\]: $`)
	h.must("rotate", "--wait", "2s", "--no-input")
	c.send("192.0.2.1\n")
	c.expect("added hive-01")
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if code, stdout, stderr := command(t, h.env, "node", "list", "--columns", "name,host,user"); code != exitOK || stdout != fmt.Sprintln("hive-01\t192.0.2.1\tops") {
		t.Errorf("%d %q %s", code, stdout, stderr)
	}
}
