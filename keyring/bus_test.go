package keyring_test

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// If there is no address, the keyring library would run dbus-launch from $PATH.
func TestNoBus(t *testing.T) {
	dir := shortDir(t)
	mark := filepath.Join(dir, "dbus-launch-was-run")
	script := "#!/bin/sh\n: >" + mark + "\necho DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent\n"
	if err := os.WriteFile(filepath.Join(dir, "dbus-launch"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	stale := filepath.Join(dir, "stale")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()

	for _, row := range []struct{ name, address string }{
		{"no address", ""},
		{"autolaunch", "autolaunch:"},
		{"autolaunch with a scope", "autolaunch:scope=*user"},
		{"no such socket", "unix:path=" + filepath.Join(dir, "absent")},
		{"stale socket", "unix:path=" + stale},
		{"a file", "unix:path=" + filepath.Join(dir, "dbus-launch")},
		{"no address at all", "nonsense"},
		{"a program", "unixexec:path=" + filepath.Join(dir, "dbus-launch")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", row.address)
			if (row.address == "" || row.address == "autolaunch:") && runtimeBusExists(t) {
				// The user who runs the tests is logged in, so that user's bus is found. The
				// test can only check that nothing was run, and it makes only a Get.
				k := keyring.New(keyring.Config{Timeout: short, Service: "rbee-vault-test"})
				within(t, soon, func() { k.Get(t.Context(), account) })
			} else {
				wantAll(t, keyring.Config{Timeout: long}, keyring.ErrNoBus)
				_, err := keyring.New(keyring.Config{Timeout: long}).Provider(t.Context())
				wantUnavailable(t, "Provider", err, keyring.ErrNoBus)
			}
			if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("dbus-launch was run: %v", err)
			}
		})
	}
}

// A socket that accepts connections and never answers.
func TestStuckBus(t *testing.T) {
	path := filepath.Join(shortDir(t), "bus")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+path)

	wantAll(t, keyring.Config{Timeout: short}, keyring.ErrTimeout)

	deadline := 3 * time.Second
	k := keyring.New(keyring.Config{Timeout: deadline})
	within(t, deadline+soon, func() {
		_, err := k.Get(t.Context(), account)
		wantUnavailable(t, "Get", err, keyring.ErrTimeout)
	})
	within(t, deadline/2, func() {
		_, err := k.Get(t.Context(), account)
		wantUnavailable(t, "Get", err, keyring.ErrTimeout)
		wantUnavailable(t, "Set", k.Set(t.Context(), account, value), keyring.ErrTimeout)
		wantUnavailable(t, "Delete", k.Delete(t.Context(), account), keyring.ErrTimeout)
	})
}

// shortDir is a t.TempDir with a path short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "keyring")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// runtimeBusExists reports whether a bus is found without any variable.
func runtimeBusExists(t *testing.T) bool {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bus", "dbus-session"} {
		if _, err := os.Stat(filepath.Join("/run/user", u.Uid, name)); err == nil {
			return true
		}
	}
	return false
}
