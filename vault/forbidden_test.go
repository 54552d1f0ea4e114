package vault_test

import (
	"context"
	"errors"
	"testing"
)

// forbidden is a keyring that nobody may call.
type forbidden struct{ t *testing.T }

func (f forbidden) fail() error {
	f.t.Helper()
	f.t.Error("the keyring was called")
	return errors.New("forbidden")
}
func (f forbidden) Get(context.Context, string) (string, error)         { return "", f.fail() }
func (f forbidden) GetAll(context.Context, ...string) ([]string, error) { return nil, f.fail() }
func (f forbidden) Set(context.Context, string, string) error           { return f.fail() }
func (f forbidden) Delete(context.Context, string) error                { return f.fail() }
