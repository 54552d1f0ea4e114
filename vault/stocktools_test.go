package vault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// TestStockToolsGiveTheKey runs the commands of the manual, jq, age and openssl, on a slots
// file and a recovery identity. They must print the key that opens the database.
func TestStockToolsGiveTheKey(t *testing.T) {
	manual, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?s)\n(line=.*?)```").FindSubmatch(manual)
	if commands == nil {
		t.Fatal("the manual does not say how")
	}
	for _, class := range []string{"classic", "rotated"} {
		home := t.TempDir()
		cfg := Config{Path: DefaultPath(home)}
		recovery := filepath.Join(home, "recovery.txt")
		if _, err := Create(t.Context(), cfg, CreateOptions{RecoveryFile: recovery}); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(recovery)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if cfg.Identities, err = identity.Parse(t.Context(), f, identity.Options{}); err != nil {
			t.Fatal(err)
		}
		v, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if class == "rotated" {
			if _, err := v.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Sprintf(`PRAGMA key = "x'%x%s'";`, v.key.Derive(rootkey.SQLCipher), v.key.ID())
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-euc", string(commands[1]))
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home)
		out, err := cmd.Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %v: the commands give another key", class, err)
		}
	}
}
