package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Config says which items a Keyring handles and how long a call may take.
type Config struct {
	// Service is the name under which all items are stored. Default: "rbee-vault".
	Service string
	// Timeout is the deadline of each call. Default: 60 s if Interactive is true, because a
	// person may be typing a password; otherwise 5 s.
	Timeout time.Duration
	// Interactive says whether a prompt to unlock the keyring may be shown.
	Interactive bool
}

func (c Config) service() string {
	if c.Service == "" {
		return "rbee-vault"
	}
	return c.Service
}

func (c Config) timeout() time.Duration {
	switch {
	case c.Timeout > 0:
		return c.Timeout
	case c.Interactive:
		return 60 * time.Second
	default:
		return 5 * time.Second
	}
}

// Keyring is the user's keyring, limited to the items of one service. It is safe for concurrent
// use; its calls take turns.
type Keyring struct {
	service     string
	timeout     time.Duration
	interactive bool

	// turn is a semaphore of one. A running call holds it until the call is really over, so an
	// abandoned call blocks the others.
	turn chan struct{}
	// finished is closed when a call passes the deadline.
	finished     chan struct{}
	finishedOnce sync.Once
}

// New returns the keyring that cfg describes. It does no I/O.
func New(cfg Config) *Keyring {
	return &Keyring{
		service:     cfg.service(),
		timeout:     cfg.timeout(),
		interactive: cfg.Interactive,
		turn:        make(chan struct{}, 1),
		finished:    make(chan struct{}),
	}
}

// Get returns the value stored for account as the keyring returns it. A program of the same
// user may have stored it. If the keyring has no such item, the error is ErrNotFound. If the
// keyring could not be asked, it is ErrUnavailable.
func (k *Keyring) Get(ctx context.Context, account string) (string, error) {
	value, err := k.call(ctx, func(ctx context.Context) (string, error) {
		return k.get(ctx, account)
	})
	if err != nil {
		return "", fmt.Errorf("get keyring item %q: %w", account, err)
	}
	return value, nil
}

// GetAll returns the values stored for accounts, in their order, and "" for each account
// without an item. It has one deadline for all of them. The first error but ErrNotFound ends it
// and is returned.
func (k *Keyring) GetAll(ctx context.Context, accounts ...string) ([]string, error) {
	var values []string
	_, err := k.call(ctx, func(ctx context.Context) (string, error) {
		var found []string
		err := k.ask(ctx, func(s *secretService) (err error) {
			found, err = k.getAll(ctx, s, accounts)
			return err
		})
		values = found
		return "", err
	})
	if err != nil {
		return nil, fmt.Errorf("get keyring items: %w", err)
	}
	return values, nil
}

func (k *Keyring) getAll(ctx context.Context, s *secretService, accounts []string) ([]string, error) {
	if !s.locked {
		if values, ok := getValues(ctx, s, k.service, accounts); ok {
			return values, nil
		}
	}
	values := make([]string, len(accounts))
	for i, a := range accounts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		value, err := storeGet(k.service, a)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("item %q: %w", a, err)
		}
		values[i] = value
	}
	return values, nil
}

// Set stores value for account, in place of an earlier one, and reads it back. If it returns
// nil, a Get returned exactly value. See CheckValue for the values that can be stored. After
// ErrReadBack nothing reliable is stored. After any other ErrUnavailable either the old or the
// new value is stored.
func (k *Keyring) Set(ctx context.Context, account, value string) error {
	err := CheckValue(value)
	if err == nil {
		_, err = k.call(ctx, func(ctx context.Context) (string, error) {
			return "", k.set(ctx, account, value)
		})
	}
	if err != nil {
		return fmt.Errorf("set keyring item %q: %w", account, err)
	}
	return nil
}

func (k *Keyring) set(ctx context.Context, account, value string) error {
	err := k.ask(ctx, func(s *secretService) error {
		// An existing item gets a new secret instead of being replaced: some keyrings ask
		// before an item is replaced, but none asks before a secret is set.
		updated, err := updateItem(ctx, s, k.service, account, value)
		if errors.Is(err, ErrLocked) && k.interactive && mayPrompt(ctx) {
			err = nil // the library will ask, and somebody may answer
		}
		if err != nil || updated {
			return err
		}
		return storeSet(k.service, account, value)
	})
	if err != nil {
		return err
	}
	// If a prompt was dismissed while the item was created, the library reports success.
	got, err := k.get(ctx, account)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: it is missing", ErrReadBack)
	case err != nil:
		return fmt.Errorf("%w: reading it back: %w", ErrReadBack, err)
	case got != value:
		return fmt.Errorf("%w: it has another value", ErrReadBack)
	}
	return nil
}

// Delete removes the item of account and then looks for it. If it returns nil, a Get found
// nothing. It returns nil if there was no item, and ErrNotDeleted if one is still found.
func (k *Keyring) Delete(ctx context.Context, account string) error {
	_, err := k.call(ctx, func(ctx context.Context) (string, error) {
		return "", k.delete(ctx, account)
	})
	if err != nil {
		return fmt.Errorf("delete keyring item %q: %w", account, err)
	}
	return nil
}

func (k *Keyring) delete(ctx context.Context, account string) error {
	err := k.ask(ctx, func(*secretService) error { return storeDelete(k.service, account) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// Only the first of several matching items was deleted. The others are not deleted: the
	// caller must learn that there are several.
	switch _, err := k.get(ctx, account); {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("looking for it afterwards: %w", err)
	}
	return ErrNotDeleted
}

func (k *Keyring) get(ctx context.Context, account string) (value string, err error) {
	err = k.ask(ctx, func(*secretService) error {
		value, err = storeGet(k.service, account)
		return err
	})
	if err != nil {
		return "", err
	}
	return value, nil
}

// Provider names, for people, the program that is the keyring now, such as
// "gnome-keyring-daemon (pid 123)". Another desktop may have another provider, with other
// items. On the Secret Service, Provider may start the program. It takes no turn and also works
// after a call has passed the deadline, because then its answer is needed most. Errors:
// ErrNoBus, ErrNoProvider, ErrTimeout, ErrUnsupported.
func (k *Keyring) Provider(ctx context.Context) (string, error) {
	limited, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	name, err := await(limited, providerName)
	if errors.Is(err, errLate) {
		err = k.overdue(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("name keyring provider: %w", err)
	}
	return name, nil
}
