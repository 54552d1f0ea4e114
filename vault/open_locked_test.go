package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestOpenDuringATransition: while another process holds the exclusive lock, nobody opens or
// makes a vault.
func TestOpenDuringATransition(t *testing.T) {
	cfg := vaulttest.Config(t)
	before := read(t, cfg.Path)
	cmd := exec.Command("flock", "--no-fork", "--exclusive", cfg.Path+".lock", "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	lines := start(t, cmd)
	fmt.Fprintln(in, "holding")
	if !lines.Scan() {
		t.Fatal("the other process does not hold the lock")
	}
	cfg.Wait = 50 * time.Millisecond
	_, open := vault.Open(t.Context(), cfg)
	_, replace := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Replace: true})
	for name, err := range map[string]error{"open": open, "replace": replace} {
		if !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
			t.Errorf("%s: %v, want ErrLocked that names pid %d", name, err, cmd.Process.Pid)
		}
	}
	if !bytes.Equal(read(t, cfg.Path), before) {
		t.Error("the database was changed")
	}
	in.Close()
	cfg.Wait = time.Minute
	vaulttest.Open(t, cfg)
}
