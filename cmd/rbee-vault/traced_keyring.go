package main

import (
	"context"

	"github.com/rbee-keeper/rbee-vault/internal/trace"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// tracedKeyring is the OS keyring, whose calls are steps of --debug.
type tracedKeyring struct{ *keyring.Keyring }

// Get implements [vault.Keyring].
func (k tracedKeyring) Get(ctx context.Context, account string) (string, error) {
	defer trace.Step(ctx, "keyring: get", "item", account)()
	return k.Keyring.Get(ctx, account)
}

// GetAll implements [vault.Keyring].
func (k tracedKeyring) GetAll(ctx context.Context, accounts ...string) ([]string, error) {
	defer trace.Step(ctx, "keyring: get", "items", accounts)()
	return k.Keyring.GetAll(ctx, accounts...)
}

// Set implements [vault.Keyring].
func (k tracedKeyring) Set(ctx context.Context, account, value string) error {
	defer trace.Step(ctx, "keyring: set", "item", account)()
	return k.Keyring.Set(ctx, account, value)
}

// Delete implements [vault.Keyring].
func (k tracedKeyring) Delete(ctx context.Context, account string) error {
	defer trace.Step(ctx, "keyring: delete", "item", account)()
	return k.Keyring.Delete(ctx, account)
}
