package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Config says which items a Keyring handles and how long it may take.
type Config struct {
	// Service is the name that all items are filed under; default "rbee-vault".
	Service string
	// Timeout is the deadline of each call. Default: 60 s when Interactive, since a
	// person may be typing a password, else 5 s.
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

// Keyring is the user's keyring, limited to the items of one service. It is safe for
// concurrent use; its calls take turns.
type Keyring struct {
	service     string
	timeout     time.Duration
	interactive bool

	// turn is a semaphore of one. Whatever call is under way holds it, until it really
	// is over: a call that was left behind keeps the others out.
	turn chan struct{}
	// finished is closed when a call passed the deadline.
	finished     chan struct{}
	finishedOnce sync.Once
}

// New returns the keyring described by cfg. It does no I/O.
func New(cfg Config) *Keyring {
	return &Keyring{
		service:     cfg.service(),
		timeout:     cfg.timeout(),
		interactive: cfg.Interactive,
		turn:        make(chan struct{}, 1),
		finished:    make(chan struct{}),
	}
}

// Get returns the value stored for account, as the keyring gives it; a program of the
// same user can have put it there. If the keyring has none, the error is ErrNotFound; if
// it could not be asked, ErrUnavailable.
func (k *Keyring) Get(ctx context.Context, account string) (string, error) {
	value, err := k.call(ctx, func(ctx context.Context) (string, error) {
		return k.get(ctx, account)
	})
	if err != nil {
		return "", fmt.Errorf("get keyring item %q: %w", account, err)
	}
	return value, nil
}

// GetAll returns the values stored for accounts, in their order, and "" where the keyring
// has none. It asks the keyring once, within one deadline. The error is that of the first
// Get that fails for another reason than ErrNotFound.
func (k *Keyring) GetAll(ctx context.Context, accounts ...string) ([]string, error) {
	var values []string
	_, err := k.call(ctx, func(ctx context.Context) (string, error) {
		found := make([]string, len(accounts))
		err := k.ask(ctx, func() (err error) {
			for i, a := range accounts {
				found[i], err = storeGet(k.service, a)
				if err != nil && !errors.Is(err, ErrNotFound) {
					return fmt.Errorf("item %q: %w", a, err)
				}
			}
			return nil
		})
		values = found
		return "", err
	})
	if err != nil {
		return nil, fmt.Errorf("get keyring items: %w", err)
	}
	return values, nil
}

// Set stores value for account, in place of an earlier one, and reads it back: if it
// returns nil, a Get found exactly value. See CheckValue for what can be stored. On an
// ErrReadBack nothing reliable is stored; on any other ErrUnavailable either the old or
// the new value is.
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
	err := k.ask(ctx, func() error {
		// An item that is there is updated in place: some keyrings ask before one is
		// replaced, and none before its secret is set.
		updated, err := updateItem(ctx, k.service, account, value)
		if errors.Is(err, ErrLocked) && k.interactive && mayPrompt(ctx) {
			err = nil // somebody may answer the library's question
		}
		if err != nil || updated {
			return err
		}
		return storeSet(k.service, account, value)
	})
	if err != nil {
		return err
	}
	// A prompt dismissed while the item was made is reported to us as success.
	got, err := k.get(ctx, account)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: it is missing", ErrReadBack)
	case err != nil:
		return fmt.Errorf("%w: reading it back: %w", ErrReadBack, err)
	case got != value:
		return fmt.Errorf("%w: another one is there", ErrReadBack)
	}
	return nil
}

// Delete removes the item of account and then looks for it: if it returns nil, a Get found
// nothing. It returns nil where there was none, and ErrNotDeleted where one is still found.
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
	err := k.ask(ctx, func() error { return storeDelete(k.service, account) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// Only the first of several matching items is deleted. The others are not deleted in
	// turn: that there are several is something the caller should hear about.
	switch _, err := k.get(ctx, account); {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("looking for it afterwards: %w", err)
	}
	return ErrNotDeleted
}

func (k *Keyring) get(ctx context.Context, account string) (value string, err error) {
	err = k.ask(ctx, func() error {
		value, err = storeGet(k.service, account)
		return err
	})
	if err != nil {
		return "", err
	}
	return value, nil
}

// Provider names, for people, what serves as keyring now, such as "gnome-keyring-daemon
// (pid 123)". The provider can change with the desktop, and with it what it holds. On the
// Secret Service it may start the provider. It takes no turn, and works after a call has
// passed the deadline, for that is when one wants to know. Errors: ErrNoBus,
// ErrNoProvider, ErrTimeout, ErrUnsupported.
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
