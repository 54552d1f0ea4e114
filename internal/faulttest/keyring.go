package faulttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// Keyring is a keyring that outlives the process: a directory with one file per item. Each call
// is a step.
type Keyring struct {
	Dir   string
	Steps *Steps
}

func (k Keyring) path(account string) string { return filepath.Join(k.Dir, url.PathEscape(account)) }

// Get returns the item's value, or an error that matches [keyring.ErrNotFound].
func (k Keyring) Get(ctx context.Context, account string) (value string, err error) {
	err = k.do(ctx, "get", account, func() error {
		data, err := os.ReadFile(k.path(account))
		if errors.Is(err, fs.ErrNotExist) {
			return keyring.ErrNotFound
		}
		value = string(data)
		return err
	})
	if err != nil {
		return "", err
	}
	return value, nil
}

// GetAll returns the items' values, and "" for an absent item. It is one step.
func (k Keyring) GetAll(ctx context.Context, accounts ...string) ([]string, error) {
	values := make([]string, len(accounts))
	err := k.do(ctx, "get", strings.Join(accounts, " "), func() error {
		for i, account := range accounts {
			data, err := os.ReadFile(k.path(account))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			values[i] = string(data)
		}
		return nil
	})
	return values, err
}

// Set stores a value that [keyring.CheckValue] accepts.
func (k Keyring) Set(ctx context.Context, account, value string) error {
	if err := keyring.CheckValue(value); err != nil {
		return fmt.Errorf("set keyring item %q: %w", account, err)
	}
	return k.do(ctx, "set", account, func() error { return durable.Replace(durable.OS{}, k.path(account), []byte(value)) })
}

// Delete removes the item, if there is one.
func (k Keyring) Delete(ctx context.Context, account string) error {
	return k.do(ctx, "delete", account, func() error { return durable.RemoveIfExists(durable.OS{}, k.path(account)) })
}

// Accounts returns the accounts of all items.
func (k Keyring) Accounts() ([]string, error) {
	entries, err := os.ReadDir(k.Dir)
	if err != nil {
		return nil, err
	}
	var accounts []string
	for _, e := range entries {
		account, err := url.PathUnescape(e.Name())
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, account)
	}
	return accounts, nil
}

func (k Keyring) do(ctx context.Context, op, account string, call func() error) error {
	err := ctx.Err()
	if err == nil {
		err = k.Steps.Do("keyring "+op, call)
	}
	if err != nil {
		return fmt.Errorf("%s keyring item %q: %w", op, account, err)
	}
	return nil
}
