package vault_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestLockedIdentities opens a vault by identities under a passphrase, in each form that people
// have.
func TestLockedIdentities(t *testing.T) {
	dir := t.TempDir()
	recipients := map[string]string{}
	files := map[string]string{}
	for name, args := range map[string][]string{
		"ed25519":     {"-t", "ed25519"},
		"rsa":         {"-t", "rsa"},
		"old PEM rsa": {"-t", "rsa", "-m", "PEM"},
	} {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		sshKeygen(t, append(args, "-N", "secret", "-f", file)...)
		files[name], recipients[name] = string(read(t, file)), string(read(t, file+".pub"))
	}
	native := newIdentity(t)
	recipients["age -p"] = native.Recipient().String()
	files["age -p"] = ageEncrypted(t, "# mine\n"+native.String()+"\n", "secret")
	recipients["age -p, binary"] = newIdentity(t).Recipient().String()
	binary := newIdentity(t)
	recipients["age -p, binary"] = binary.Recipient().String()
	files["age -p, binary"] = string(decodeArmor(t, ageEncrypted(t, binary.String(), "secret")))

	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
	all := []string{}
	for _, r := range recipients {
		all = append(all, r)
	}
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: all}); err != nil {
		t.Fatal(err)
	}
	parse := func(text string, ask identity.PassphraseFunc) []age.Identity {
		t.Helper()
		ids, err := identity.Parse(t.Context(), strings.NewReader(text), identity.Options{Name: "the test's", Passphrase: ask})
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	for name, text := range files {
		asked := 0
		if err := openedBy(t, cfg, parse(text, passphrases(&asked, "wrong", "secret"))...); err != nil || asked != 2 {
			t.Errorf("%s: %v, asked %d times, want 2", name, err, asked)
		}
		asked = 0
		if err := openedBy(t, cfg, parse(text, passphrases(&asked, "1", "2", "3", "secret"))...); !errors.Is(err, vault.ErrWrongKey) || asked != 3 || !strings.Contains(err.Error(), "the test's") {
			t.Errorf("%s: %v, asked %d times, want ErrWrongKey after 3", name, err, asked)
		}
		if err := openedBy(t, cfg, parse(text, nil)...); !errors.Is(err, vault.ErrNoUnlockMethod) || !strings.Contains(err.Error(), "needs a passphrase") {
			t.Errorf("%s: %v, want it to say that a passphrase is needed", name, err)
		}
		refused := errors.New("nobody there")
		if err := openedBy(t, cfg, parse(text, func(context.Context, string, int) ([]byte, error) { return nil, refused })...); !errors.Is(err, refused) {
			t.Errorf("%s: %v, want the refusal", name, err)
		}
	}
	// The passphrase of an SSH key that belongs to no recipient is not asked for.
	file := filepath.Join(dir, "stranger")
	sshKeygen(t, "-t", "ed25519", "-N", "secret", "-f", file)
	asked := 0
	if err := openedBy(t, cfg, parse(string(read(t, file)), passphrases(&asked, "secret"))...); !errors.Is(err, vault.ErrWrongKey) || asked != 0 {
		t.Errorf("a stranger's: %v, asked %d times", err, asked)
	}
	// Of several identities, one that matches is enough.
	asked = 0
	if err := openedBy(t, cfg, append(parse(files["rsa"], passphrases(&asked, "1")), newIdentity(t), native)...); err != nil {
		t.Errorf("%v, asked %d times", err, asked)
	}
}

// ageEncrypted does what `age -p -a` does. That command asks on a terminal, so the test uses
// the library.
func ageEncrypted(t *testing.T, text, passphrase string) string {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10)
	var b strings.Builder
	w, err := age.Encrypt(&b, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return encodeArmor(t, []byte(b.String()))
}

// TestParseIdentitiesRefuses: the errors contain nothing of the input.
func TestParseIdentitiesRefuses(t *testing.T) {
	ecdsa := filepath.Join(t.TempDir(), "ecdsa")
	sshKeygen(t, "-t", "ecdsa", "-N", "", "-f", ecdsa)
	locked := filepath.Join(t.TempDir(), "locked")
	sshKeygen(t, "-t", "ecdsa", "-N", "secret", "-f", locked)
	for name, text := range map[string]string{
		"nothing":        "",
		"white space":    " \n\t\n",
		"comments alone": "# one\n# two\n",
		"garbage":        "planted\n",
		"a bad line":     newIdentity(t).String() + "\nAGE-SECRET-KEY-1PLANTED\n",
		"a bad plugin":   "AGE-PLUGIN-PLANTED\n",
		"a recipient":    newIdentity(t).Recipient().String(),
		"ecdsa":          string(read(t, ecdsa)),
		"locked ecdsa":   string(read(t, locked)),
		"a broken PEM":   "-----BEGIN OPENSSH PRIVATE KEY-----\nplanted\n-----END OPENSSH PRIVATE KEY-----\n",
		"too much":       strings.Repeat("# planted\n", 7000) + newIdentity(t).String(),
	} {
		ids, err := identity.Parse(t.Context(), strings.NewReader(text), identity.Options{})
		if !errors.Is(err, vault.ErrInvalid) || ids != nil {
			t.Errorf("%s: %v, %d identities, want ErrInvalid", name, err, len(ids))
		}
		if err != nil && (strings.Contains(strings.ToLower(err.Error()), "planted") || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s: the error contains the content: %v", name, err)
		}
	}
}

func FuzzParseIdentities(f *testing.F) {
	f.Add("AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQY")
	f.Add("# comment\nAGE-PLUGIN-RBEETEST-1QQQQ\n")
	f.Add("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
	f.Add("-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n")
	f.Add("age-encryption.org/v1\n-> scrypt a 18\n")
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := identity.Parse(t.Context(), strings.NewReader(text), identity.Options{})
		if (err == nil) == (len(ids) == 0) {
			t.Errorf("%d identities, %v", len(ids), err)
		}
		if err != nil && !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%v, want ErrInvalid", err)
		}
	})
}

func FuzzParseRecipient(f *testing.F) {
	f.Add(otherRecipient)
	f.Add("age1pq1qqqq")
	f.Add("age1tag1qqqq")
	f.Add("age1yubikey1qqqq")
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := identity.ParseRecipient(text, nil)
		if (err == nil) == (r == nil) || err != nil && !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// TestSheet: age reads the page unchanged.
func TestSheet(t *testing.T) {
	identity := newIdentity(t)
	n := vault.NewIdentity{Kind: vault.SlotRecovery, Identity: identity.String(), Recipient: identity.Recipient().String(), Signer: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW"}
	sheet := filepath.Join(t.TempDir(), "sheet.txt")
	write(t, sheet, n.Sheet())
	out, err := exec.Command("age-keygen", "-y", sheet).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != n.Recipient {
		t.Errorf("age-keygen -y: %v: %s", err, out)
	}
	for line := range strings.Lines(string(n.Sheet())) {
		if len(line) > 100 {
			t.Errorf("a line too long to print: %q", line)
		}
	}
}
