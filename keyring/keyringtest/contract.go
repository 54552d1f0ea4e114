package keyringtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// K is the interface of a keyring.
type K interface {
	Get(ctx context.Context, account string) (string, error)
	GetAll(ctx context.Context, accounts ...string) ([]string, error)
	Set(ctx context.Context, account, value string) error
	Delete(ctx context.Context, account string) error
}

var _ K = (*keyring.Keyring)(nil)

// Contract checks that what newKeyring returns behaves as a keyring. Each subtest calls
// newKeyring, uses its own accounts, and deletes its items. So newKeyring may always return the
// same keyring.
func Contract(t *testing.T, newKeyring func(t *testing.T) K) {
	t.Run("absent", func(t *testing.T) {
		k := newKeyring(t)
		if got, err := k.Get(t.Context(), "absent"); !errors.Is(err, keyring.ErrNotFound) || errors.Is(err, keyring.ErrUnavailable) || got != "" {
			t.Errorf("Get of an absent item = %q, %v; want ErrNotFound", got, err)
		}
		if err := k.Delete(t.Context(), "absent"); err != nil {
			t.Errorf("Delete of an absent item = %v; want nil", err)
		}
	})

	t.Run("life of an item", func(t *testing.T) {
		k := newKeyring(t)
		wantSet(t, k, "life", "first")
		wantGet(t, k, "life", "first")
		wantSet(t, k, "life", "second")
		wantGet(t, k, "life", "second")
		wantSet(t, k, "life", "second")
		wantDelete(t, k, "life")
		if got, err := k.Get(t.Context(), "life"); !errors.Is(err, keyring.ErrNotFound) {
			t.Errorf("Get after Delete = %q, %v; want ErrNotFound", got, err)
		}
		wantDelete(t, k, "life")
	})

	t.Run("accounts are apart", func(t *testing.T) {
		k := newKeyring(t)
		accounts := []string{
			"00112233445566778899aabbccddeeff",
			"00112233445566778899aabbccddeefe",
			"00112233-4455-6677-8899-aabbccddeeff/anchor",
			"00112233-4455-6677-8899-aabbccddeeff",
		}
		for _, account := range accounts {
			wantSet(t, k, account, "value of "+account)
		}
		wantDelete(t, k, accounts[0])
		want := []string{"value of " + accounts[2], "", "value of " + accounts[1]}
		if got, err := k.GetAll(t.Context(), accounts[2], accounts[0], accounts[1]); err != nil || !slices.Equal(got, want) {
			t.Errorf("GetAll = %q, %v; want %q", got, err, want)
		}
		for _, account := range accounts[1:] {
			wantGet(t, k, account, "value of "+account)
			wantDelete(t, k, account)
		}
	})

	t.Run("values", func(t *testing.T) {
		var printable strings.Builder
		for c := byte(' '); c <= '~'; c++ {
			printable.WriteByte(c)
		}
		for _, row := range []struct {
			name, value string
			want        error
		}{
			{"all printable characters", printable.String(), nil},
			{"spaces only", "  ", nil},
			{"the longest", strings.Repeat("x", keyring.MaxValue), nil},
			{"one longer", strings.Repeat("x", keyring.MaxValue+1), keyring.ErrTooBig},
			{"empty", "", keyring.ErrInvalidValue},
			{"two lines", "one\ntwo", keyring.ErrInvalidValue},
			{"final newline", "one\n", keyring.ErrInvalidValue},
			{"NUL", "a\x00b", keyring.ErrInvalidValue},
			{"DEL", "a\x7fb", keyring.ErrInvalidValue},
			{"not ASCII", "é", keyring.ErrInvalidValue},
		} {
			t.Run(row.name, func(t *testing.T) {
				k := newKeyring(t)
				wantSet(t, k, "values", "before")
				err := k.Set(t.Context(), "values", row.value)
				if !errors.Is(err, row.want) {
					t.Fatalf("Set = %v; want %v", err, row.want)
				}
				if row.want == nil {
					wantGet(t, k, "values", row.value)
				} else {
					wantGet(t, k, "values", "before")
				}
				wantDelete(t, k, "values")
			})
		}
	})

	t.Run("ended context", func(t *testing.T) {
		k := newKeyring(t)
		wantSet(t, k, "ended", "before")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, getErr := k.Get(ended, "ended")
		_, getAllErr := k.GetAll(ended, "ended")
		for op, err := range map[string]error{
			"Get":    getErr,
			"GetAll": getAllErr,
			"Set":    k.Set(ended, "ended", "after"),
			"Delete": k.Delete(ended, "ended"),
		} {
			if !errors.Is(err, context.Canceled) || errors.Is(err, keyring.ErrUnavailable) {
				t.Errorf("%s with an ended context = %v; want context.Canceled alone", op, err)
			}
		}
		wantGet(t, k, "ended", "before")
		wantDelete(t, k, "ended")
	})

	t.Run("concurrency", func(t *testing.T) {
		k := newKeyring(t)
		const workers = 16
		var written []string
		for i := range workers {
			written = append(written, fmt.Sprintf("value %d", i))
		}
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				own := fmt.Sprintf("own %d", i)
				wantSet(t, k, own, written[i])
				wantGet(t, k, own, written[i])
				wantSet(t, k, "common", written[i])
				if got, err := k.Get(t.Context(), "common"); err != nil || !slices.Contains(written, got) {
					t.Errorf("Get of what all of them set = %q, %v", got, err)
				}
				wantDelete(t, k, own)
			})
		}
		wg.Wait()
		wantDelete(t, k, "common")
	})
}

func wantGet(t *testing.T, k K, account, want string) {
	t.Helper()
	if got, err := k.Get(t.Context(), account); err != nil || got != want {
		t.Errorf("Get(%q) = %q, %v; want %q", account, got, err, want)
	}
}

func wantSet(t *testing.T, k K, account, value string) {
	t.Helper()
	if err := k.Set(t.Context(), account, value); err != nil {
		t.Errorf("Set(%q) = %v", account, err)
	}
}

func wantDelete(t *testing.T, k K, account string) {
	t.Helper()
	if err := k.Delete(t.Context(), account); err != nil {
		t.Errorf("Delete(%q) = %v", account, err)
	}
}
