package keyringtest

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// Memory is a keyring in memory which passes Contract. The zero value is empty and ready.
// It is safe for concurrent use.
type Memory struct {
	// Hook, if set, is called twice by each operation that has a chance of success: before
	// its effect and after it. op is "get", "set" or "delete". An error of Hook is the
	// operation's error; the effect then has taken place, or has not. Hook may call the
	// Memory itself. It must be set before the Memory is used by several goroutines.
	Hook func(op, account string, before bool) error

	mu    sync.Mutex // guards items, and is not held while Hook runs
	items map[string]string
}

var _ K = (*Memory)(nil)

// Get returns the value stored for account, or keyring.ErrNotFound.
func (m *Memory) Get(ctx context.Context, account string) (string, error) {
	var value string
	err := m.do(ctx, "get", account, func() error {
		var ok bool
		if value, ok = m.items[account]; !ok {
			return keyring.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return value, nil
}

// Set stores a value that keyring.CheckValue accepts.
func (m *Memory) Set(ctx context.Context, account, value string) error {
	if err := keyring.CheckValue(value); err != nil {
		return fmt.Errorf("set keyring item %q: %w", account, err)
	}
	return m.do(ctx, "set", account, func() error {
		if m.items == nil {
			m.items = make(map[string]string)
		}
		m.items[account] = value
		return nil
	})
}

// Delete removes the item of account, if there is one.
func (m *Memory) Delete(ctx context.Context, account string) error {
	return m.do(ctx, "delete", account, func() error {
		delete(m.items, account)
		return nil
	})
}

// Items returns a copy of all that is stored: values by account. It does not call Hook.
func (m *Memory) Items() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := maps.Clone(m.items)
	if items == nil {
		items = map[string]string{}
	}
	return items
}

// do runs effect under the lock and between the two calls of the hook.
func (m *Memory) do(ctx context.Context, op, account string, effect func() error) error {
	hook := m.Hook
	if hook == nil {
		hook = func(string, string, bool) error { return nil }
	}
	err := ctx.Err()
	if err == nil {
		err = hook(op, account, true)
	}
	if err == nil {
		m.mu.Lock()
		err = effect()
		m.mu.Unlock()
		if hookErr := hook(op, account, false); hookErr != nil {
			err = hookErr
		}
	}
	if err != nil {
		return fmt.Errorf("%s keyring item %q: %w", op, account, err)
	}
	return nil
}
