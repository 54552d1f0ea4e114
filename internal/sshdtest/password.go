package sshdtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// PasswordUser is the user of StartPassword.
const PasswordUser = "rbee-test"

// StartPassword starts an sshd that lets PasswordUser in by a password, and by the
// authorized_keys in its home directory. The user is there for that sshd alone: it sees
// account files of its own, in a mount namespace of its own. options are as for Start.
func StartPassword(t testing.TB, home, password string, options ...string) Server {
	t.Helper()
	openssl := exec.Command("openssl", "passwd", "-6", "-stdin")
	openssl.Stdin = strings.NewReader(password + "\n")
	hash, err := openssl.Output()
	if err != nil {
		t.Fatalf("openssl passwd: %v", err)
	}
	dir := t.TempDir()
	// The user has the id of whoever runs sshd, for which no privilege is needed to log in.
	entry := fmt.Sprintf("%s:x:0:0::%s:/bin/sh\n", PasswordUser, home)
	files := map[string]string{"passwd": entry, "shadow": fmt.Sprintf("%s:%s:19000:0:99999:7:::\n", PasswordUser, bytes.TrimSpace(hash))}
	script := ""
	for name, line := range files {
		system, err := os.ReadFile("/etc/" + name)
		if err != nil && name != "shadow" { // which only root reads
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, append([]byte(line), system...), 0o644); err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf("mount --bind %s /etc/%s && ", file, name)
	}
	below := []string{"unshare", "--mount"}
	if os.Getuid() != 0 { // its own root, to which the user's further ids belong
		below = append(below, "--map-root-user", "--map-auto")
	}
	s := start(t, append(below, "sh", "-c", script+`exec "$0" "$@"`), "",
		append(options, "AuthorizedKeysFile .ssh/authorized_keys", "PasswordAuthentication yes", "KbdInteractiveAuthentication yes"))
	s.User = PasswordUser
	return s
}
