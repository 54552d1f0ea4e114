// Package plugintest builds a real age plugin and puts it into the PATH of a test.
package plugintest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
)

// name is the name of the plugin.
const name = "rbeetest"

// Install builds the plugin and puts it into PATH for the test. It returns the plugin's
// directory.
func Install(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "age-plugin-"+name), "github.com/rbee-keeper/rbee-vault/internal/plugintest/age-plugin-"+name)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// Key is an identity of the plugin.
type Key struct {
	Recipient string // age1rbeetest1...
	Identity  string // AGE-PLUGIN-RBEETEST-1...
	WithPIN   string // the same, but it asks for the PIN 1234
	Hanging   string // an identity for which the plugin never answers
	HangingTo string // a recipient of that kind
}

// NewKey generates a key of either class.
func NewKey(t testing.TB, postQuantum bool) Key {
	t.Helper()
	var identity, recipient string
	if postQuantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		identity, recipient = id.String(), id.Recipient().String()
	} else {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		identity, recipient = id.String(), id.Recipient().String()
	}
	return Key{
		Recipient: plugin.EncodeRecipient(name, []byte(recipient)),
		Identity:  plugin.EncodeIdentity(name, []byte(identity)),
		WithPIN:   plugin.EncodeIdentity(name, []byte("pin:"+identity)),
		Hanging:   plugin.EncodeIdentity(name, []byte("hang:"+identity)),
		HangingTo: plugin.EncodeRecipient(name, []byte("hang:"+recipient)),
	}
}
