package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// systemdCredential encrypts an identity with systemd-creds.
type systemdCredential struct {
	key  string // for --with-key of systemd-creds; "" for its default
	warn func(format string, args ...any)
}

// encode encrypts the identity, and checks that it decrypts again.
func (s systemdCredential) encode(ctx context.Context, n vault.NewIdentity) ([]byte, error) {
	file := n.File()
	defer clear(file)
	args := []string{"encrypt", "--name=" + vault.CredentialName, "-", "-"}
	if s.key != "" {
		args = append([]string{"--with-key=" + s.key}, args...)
	}
	encrypted, messages, err := systemdCreds(ctx, file, args...)
	if err != nil {
		return nil, err
	}
	if messages != "" { // for example, that its own key is not on an encrypted disk
		s.warn("systemd-creds: %s", messages)
	}
	again, _, err := systemdCreds(ctx, encrypted, "decrypt", "--name="+vault.CredentialName, "-", "-")
	defer clear(again)
	if err == nil && !bytes.Equal(again, file) {
		err = errors.New("systemd-creds decrypts the credential to something else")
	}
	if err != nil {
		return nil, fmt.Errorf("the credential does not decrypt: %w", err)
	}
	return encrypted, nil
}

// systemdCreds runs systemd-creds, and returns its standard output and its messages.
// Secrets go through pipes only.
func systemdCreds(ctx context.Context, stdin []byte, args ...string) (stdout []byte, messages string, err error) {
	cmd := exec.CommandContext(ctx, "systemd-creds", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	messages = wire.Clean(strings.TrimSpace(errs.String()))
	if err != nil {
		if messages != "" {
			err = fmt.Errorf("%w: %s", err, messages)
		}
		return nil, messages, fmt.Errorf("systemd-creds: %w", err)
	}
	return out.Bytes(), messages, nil
}
