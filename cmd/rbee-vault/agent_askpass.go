package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// askpass is a program that shows a question to the person, as ssh-agent uses one.
type askpass string

// askpassProgram returns the program that the environment names, or ssh's default.
func askpassProgram(getenv func(string) string) (string, error) {
	name := getenv("SSH_ASKPASS")
	if name == "" {
		name = "ssh-askpass"
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return "", withHint(fmt.Errorf("%w: --confirm needs a program that asks: %v", vault.ErrInvalid, err), "Install ssh-askpass, or set SSH_ASKPASS to a program.")
	}
	return program, nil
}

// errNotConfirmed: the person answered no, or closed the question.
var errNotConfirmed = errors.New("the answer was no")

// confirm asks whether to make a signature. The program exits with 0 for yes.
func (program askpass) confirm(ctx context.Context, s registry.Signature) error {
	cmd := exec.CommandContext(ctx, string(program), question(s))
	cmd.Env = append(os.Environ(), "SSH_ASKPASS_PROMPT=confirm")
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, no := errors.AsType[*exec.ExitError](err); no {
		return errNotConfirmed
	}
	return err
}

// question names node, key and peer. The text cannot hold another line: part of it is from
// the program that asks.
func question(s registry.Signature) string {
	what := fmt.Sprintf("Sign data of the namespace %q?", s.Namespace)
	if len(s.Nodes) > 0 {
		what = fmt.Sprintf("Log in to %s as %s?", strings.Join(s.Nodes, ", "), s.User)
	}
	return wire.Clean(what) + "\nKey " + wire.Clean(s.Fingerprint) + "\nAsked by " + wire.Clean(s.Peer)
}
