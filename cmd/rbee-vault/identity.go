package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// readIdentities reads what --identity names, or the environment does.
func (a *app) readIdentities() ([]age.Identity, error) {
	sources := a.identities
	if len(sources) == 0 {
		if file := os.Getenv("RBEE_VAULT_IDENTITY_FILE"); file != "" {
			sources = []string{file}
		}
	}
	var identities []age.Identity
	for _, source := range sources {
		found, err := a.readIdentity(source)
		if err != nil {
			return nil, fmt.Errorf("identity %q: %w", source, err)
		}
		identities = append(identities, found...)
	}
	return identities, nil
}

func (a *app) readIdentity(source string) ([]age.Identity, error) {
	r, err := a.openIdentity(source)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return vault.ParseIdentities(r)
}

func (a *app) openIdentity(source string) (io.ReadCloser, error) {
	if source == "-" {
		r, err := a.takeStdin("--identity -")
		return io.NopCloser(r), err
	}
	if number, ok := strings.CutPrefix(source, "fd:"); ok {
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("%w: fd:N names a descriptor from 3 on", vault.ErrInvalid)
		}
		return os.NewFile(uintptr(fd), source), nil
	}
	if !underCredentials(source) {
		if err := vault.CheckPrivate(source); err != nil {
			return nil, err
		}
	}
	return os.Open(source)
}

// underCredentials reports whether the file is one that systemd handed over:
// there access goes by ACL, and the mode bits show the ACL's mask.
func underCredentials(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") && !strings.Contains(path, "/../")
}
