package keyringtest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/uuid"
)

// keepassxcConfig makes KeePassXC offer its database as the Secret Service.
const keepassxcConfig = `[General]
ConfigVersion=2
AutoSaveAfterEveryChange=%t
[FdoSecrets]
Enabled=true
ShowNotification=false
ConfirmAccessItem=%[2]t
ConfirmDeleteItem=%[2]t
UnlockBeforeSearch=true
`

// KeePassXC says how a KeePassXC behaves.
type KeePassXC struct {
	// Save makes it write its file after every change. Version 2.7.4 writes in a thread without
	// a lock, and crashes if an item is changed or deleted meanwhile. Only a test that restarts
	// it needs Save. Such a test must change nothing until SaveKeePassXC has returned.
	Save bool
	// Confirm makes it ask before items are read or deleted. Nobody answers.
	Confirm bool
}

// StartKeePassXC is Start with a KeePassXC, without a window, instead of gnome-keyring.
func StartKeePassXC(t testing.TB, k KeePassXC) *Session {
	t.Helper()
	s := StartBus(t)
	config := fmt.Sprintf(keepassxcConfig, k.Save, k.Confirm)
	if err := os.WriteFile(s.file("keepassxc.ini"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.makeDatabase(t)
	s.startKeePassXC(t)
	return s
}

// RestartKeePassXC kills it and starts it on the same file.
func (s *Session) RestartKeePassXC(t testing.TB) {
	t.Helper()
	s.StopProvider(t)
	s.startKeePassXC(t)
}

// SaveKeePassXC waits until value is in its file.
func (s *Session) SaveKeePassXC(t testing.TB, value string) {
	t.Helper()
	s.wait(t, func() error {
		if !strings.Contains(s.keepassxcCLI(t, 1, "export", "-f", "xml", s.file("Passwords.kdbx")), value) {
			return errors.New("the value is not saved")
		}
		return nil
	})
}

func (s *Session) file(name string) string { return filepath.Join(s.dir, "home", name) }

// makeDatabase makes a database that exposes its root group. That setting is in the database's
// own data, and only an export and an import can change it.
func (s *Session) makeDatabase(t testing.TB) {
	t.Helper()
	s.keepassxcCLI(t, 2, "db-create", "-p", s.file("empty.kdbx"))
	xml := s.keepassxcCLI(t, 1, "export", "-f", "xml", s.file("empty.kdbx"))
	_, root, _ := strings.Cut(xml, "<Root>")
	found := regexp.MustCompile(`<UUID>([^<]+)</UUID>`).FindStringSubmatch(root)
	if found == nil {
		t.Fatal("the database has no root group")
	}
	raw, err := base64.StdEncoding.DecodeString(found[1])
	if err != nil {
		t.Fatal(err)
	}
	id, err := uuid.FromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	exposed := fmt.Sprintf("<Binaries/><CustomData><Item><Key>FDO_SECRETS_EXPOSED_GROUP</Key><Value>{%s}</Value></Item></CustomData>", id)
	if err := os.WriteFile(s.file("exposed.xml"), []byte(strings.Replace(xml, "<Binaries/>", exposed, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.keepassxcCLI(t, 2, "import", "-p", s.file("exposed.xml"), s.file("Passwords.kdbx"))
}

// keepassxcCLI enters the password as often as it is asked for.
func (s *Session) keepassxcCLI(t testing.TB, passwords int, args ...string) string {
	t.Helper()
	cmd := exec.Command("keepassxc-cli", args...)
	cmd.Env = s.qtEnv()
	cmd.Stdin = strings.NewReader(strings.Repeat(password+"\n", passwords))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("keepassxc-cli %s: %v\nThis test needs a real KeePassXC: apt-get install -y --no-install-recommends keepassxc", args[0], err)
	}
	return string(out)
}

func (s *Session) qtEnv() []string { return append(s.daemonEnv(), "QT_QPA_PLATFORM=offscreen") }

func (s *Session) startKeePassXC(t testing.TB) {
	t.Helper()
	provider := newProcess(t, s.qtEnv(), "keepassxc", "--pw-stdin", "--config", s.file("keepassxc.ini"), s.file("Passwords.kdbx"))
	provider.cmd.Stdin = strings.NewReader(password + "\n")
	provider.start(t)
	s.provider = provider
	conn := dial(t, s.address)
	// The bus name appears first, and for a moment the collection is still locked.
	s.wait(t, func() error {
		var locked dbus.Variant
		err := conn.Object(secretsName, "/org/freedesktop/secrets/collection/Passwords").
			Call(getProperty, dbus.FlagNoAutoStart, collectionInterface, "Locked").Store(&locked)
		if err == nil && locked.Value() != false {
			err = errors.New("the database is locked")
		}
		return err
	})
}
