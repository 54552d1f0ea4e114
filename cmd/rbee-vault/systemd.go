package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// credentialName is what services find the identity under.
const credentialName = "rbee-vault"

// systemdCredential encrypts by systemd-creds.
type systemdCredential struct {
	key string // what systemd-creds calls --with-key; "" for its default
}

// encode encrypts the identity, and sees that it decrypts again.
func (s systemdCredential) encode(ctx context.Context, n vault.NewIdentity) ([]byte, error) {
	file := n.File()
	defer clear(file)
	args := []string{"encrypt", "--name=" + credentialName, "-", "-"}
	if s.key != "" {
		args = append([]string{"--with-key=" + s.key}, args...)
	}
	encrypted, err := systemdCreds(ctx, file, args...)
	if err != nil {
		return nil, err
	}
	again, err := systemdCreds(ctx, encrypted, "decrypt", "--name="+credentialName, "-", "-")
	defer clear(again)
	if err == nil && !bytes.Equal(again, file) {
		err = errors.New("systemd-creds decrypts the credential to something else")
	}
	if err != nil {
		return nil, fmt.Errorf("the credential does not decrypt: %w", err)
	}
	return encrypted, nil
}

// systemdCreds runs systemd-creds: secrets go through pipes alone.
func systemdCreds(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "systemd-creds", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if message := strings.TrimSpace(errs.String()); message != "" {
			err = fmt.Errorf("%w: %s", err, clean(message))
		}
		return nil, fmt.Errorf("systemd-creds: %w", err)
	}
	return out.Bytes(), nil
}
