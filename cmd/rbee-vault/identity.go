package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// readOffers reads the identities that --identity or the environment names.
func (a *app) readOffers(ctx context.Context) ([]vault.Offer, error) {
	sources, err := a.identitySources()
	if err != nil {
		return nil, err
	}
	var offers []vault.Offer
	for _, source := range sources {
		if isSecret(source) {
			return nil, fmt.Errorf("%w: this is an identity itself, and the path of its file is needed", vault.ErrInvalid)
		}
		found, err := a.readIdentity(ctx, source)
		if err != nil {
			return nil, fmt.Errorf("identity %q: %w", source, err)
		}
		offers = append(offers, vault.Offer{Name: source, Identities: found})
	}
	return offers, nil
}

// identitySources returns the names of the identities, as --identity takes them.
func (a *app) identitySources() ([]string, error) {
	if len(a.identities) > 0 {
		return a.identities, nil
	}
	v, err := a.hereSetting(settingIdentityFile)
	if err != nil || v.value == "" {
		return nil, err
	}
	if _, err := os.Lstat(v.value); a.creating && errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the new vault's identity may go there
	}
	if v.origin == originFile && (hasCredential() || a.byPassphrase || a.passphraseFile != "") {
		return nil, nil // systemd, or a flag, says how the vault is opened
	}
	return []string{v.value}, nil
}

func (a *app) readIdentity(ctx context.Context, source string) ([]age.Identity, error) {
	r, err := a.openSecret(ctx, source, "--identity -")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return identity.Parse(ctx, r, identity.Options{
		Name:       fmt.Sprintf("identity %q", source),
		Passphrase: a.askPassphrase,
		Plugins:    a.plugins(),
	})
}

// openSecret opens a file that holds a secret: by path, '-' for standard input or
// 'fd:N'. A file that others can read is refused.
func (a *app) openSecret(ctx context.Context, source, what string) (io.ReadCloser, error) {
	if source == "-" {
		return a.takeStdin(ctx, what)
	}
	if number, ok := strings.CutPrefix(source, "fd:"); ok {
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("%w: the number in fd:N must be 3 or more", vault.ErrInvalid)
		}
		// Where nobody opened it, it may be one of Go's own. Those are closed on exec, so the
		// descriptors that were passed are not.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("%w: %s is not an open descriptor", vault.ErrInvalid, source)
		}
		return newInput(ctx, os.NewFile(uintptr(fd), source)), nil
	}
	if !underCredentials(source) {
		if err := vault.CheckPrivate(source); err != nil {
			return nil, err
		}
	}
	return openInput(ctx, source)
}

// underCredentials reports whether systemd passed the file as a credential. Such a file
// is protected by an ACL, and its mode bits show the mask of the ACL.
func underCredentials(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return filepath.IsAbs(dir) && strings.HasPrefix(filepath.Clean(path), filepath.Clean(dir)+"/")
}

// hasCredential reports whether systemd passed the identity that opens the vault.
func hasCredential() bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(dir, vault.CredentialName))
	return err == nil
}

// isStream reports whether a source is standard input or a descriptor, which is read once.
func isStream(source string) bool { return source == "-" || strings.HasPrefix(source, "fd:") }

// maxPassphrase caps a passphrase, in bytes.
const maxPassphrase = 1024

// readPassphrase reads a passphrase from a file that has one line. The caller wipes it.
func (a *app) readPassphrase(ctx context.Context, source string) ([]byte, error) {
	return a.readLine(ctx, source, "--passphrase-file", "a passphrase file")
}

// readLine reads a secret from a file that has one line. flag and what name it in errors.
// The caller wipes it.
func (a *app) readLine(ctx context.Context, source, flag, what string) ([]byte, error) {
	r, err := a.openSecret(ctx, source, flag+" -")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxPassphrase+2))
	if err != nil {
		clear(data)
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(line) == 0 || len(line) > maxPassphrase || bytes.ContainsRune(line, '\n') {
		clear(data)
		return nil, fmt.Errorf("%w: %s holds one line of 1 to %d bytes", vault.ErrInvalid, what, maxPassphrase)
	}
	return line, nil
}

// askPassphrase is the [identity.PassphraseFunc] of the command: it reads
// --passphrase-file, or else prompts on the terminal.
func (a *app) askPassphrase(ctx context.Context, what string, attempt int) ([]byte, error) {
	if a.passphraseFile != "" {
		if attempt > 1 {
			return nil, vault.ErrWrongKey
		}
		// Read once: standard input and descriptors cannot be read again.
		if a.passphrase == nil {
			passphrase, err := a.readPassphrase(ctx, a.passphraseFile)
			if err != nil {
				return nil, fmt.Errorf("passphrase file %q: %w", a.passphraseFile, err)
			}
			a.passphrase = passphrase
		}
		return bytes.Clone(a.passphrase), nil
	}
	if err := a.needPassphrasePrompt(); err != nil {
		return nil, err
	}
	if attempt > 1 {
		a.ui.say("Wrong passphrase.")
	}
	return a.ui.askSecret(ctx, fmt.Sprintf("Passphrase of %s: ", what))
}

// needPassphrasePrompt returns an error if the command cannot prompt for a passphrase.
func (a *app) needPassphrasePrompt() error {
	if a.interactive() {
		return nil
	}
	return fmt.Errorf("%w for a passphrase, so --passphrase-file FILE is needed", errNeedsFlag)
}

// plugins is how an age plugin talks to the person: it may print messages, and prompt if
// the command can.
func (a *app) plugins() *plugin.ClientUI {
	if a.interactive() {
		ui := plugin.NewTerminalUI(
			func(format string, v ...any) { a.ui.info("%s", fmt.Sprintf(format, v...)) },
			a.ui.warn)
		// An identity keeps this, and may be used again when nobody is to be asked.
		request, confirm := ui.RequestValue, ui.Confirm
		ui.RequestValue = func(name, prompt string, secret bool) (string, error) {
			if a.unattended {
				return "", errNeedsFlag
			}
			return request(name, prompt, secret)
		}
		ui.Confirm = func(name, prompt, yes, no string) (bool, error) {
			if a.unattended {
				return false, errNeedsFlag
			}
			return confirm(name, prompt, yes, no)
		}
		return ui
	}
	return &plugin.ClientUI{DisplayMessage: func(name, message string) error {
		a.ui.info("%s plugin: %s", name, message)
		return nil
	}}
}
