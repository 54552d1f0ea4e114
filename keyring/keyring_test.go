package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

const (
	account = "00112233445566778899aabbccddeeff"
	value   = "rbk1:not-really-a-key"

	// long is a deadline that no test should reach. soon is the limit for "at once", with room
	// for a busy machine. short is for deadlines that must be reached.
	long  = time.Minute
	soon  = 10 * time.Second
	short = 300 * time.Millisecond
)

// within fails the test if f takes longer than limit.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > limit {
		t.Errorf("took %v, want less than %v", took, limit)
	}
}

// wantUnavailable checks that err is exactly the cause want and contains no value.
func wantUnavailable(t *testing.T, op string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || !errors.Is(err, keyring.ErrUnavailable) || errors.Is(err, keyring.ErrNotFound) {
		t.Errorf("%s = %v; want %v", op, err, want)
	}
	if err != nil && (strings.Contains(err.Error(), value) || strings.Contains(err.Error(), keyringtest.PlantedValue)) {
		t.Errorf("%s: the error holds a value: %v", op, err)
	}
}

// wantAll checks that each operation fails soon, with the cause want. Each operation has its
// own Keyring, because one that timed out would answer for the others.
func wantAll(t *testing.T, cfg keyring.Config, want error) {
	t.Helper()
	for op, err := range map[string]func(k *keyring.Keyring) error{
		"Get": func(k *keyring.Keyring) error {
			got, err := k.Get(t.Context(), account)
			if got != "" {
				t.Errorf("Get returned %q with its error", got)
			}
			return err
		},
		"Set":    func(k *keyring.Keyring) error { return k.Set(t.Context(), account, value) },
		"Delete": func(k *keyring.Keyring) error { return k.Delete(t.Context(), account) },
	} {
		within(t, soon, func() { wantUnavailable(t, op, err(keyring.New(cfg)), want) })
	}
}

func mustSet(t *testing.T, k *keyring.Keyring, account, value string) {
	t.Helper()
	if err := k.Set(t.Context(), account, value); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t *testing.T, k *keyring.Keyring, want string) {
	t.Helper()
	got, err := k.Get(t.Context(), account)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("value (-want +got):\n%s", diff)
	}
}

func TestContract(t *testing.T) {
	keyringtest.Start(t)
	k := keyring.New(keyring.Config{Timeout: long})
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
}

func TestServicesAreApart(t *testing.T) {
	keyringtest.Start(t)
	ours := keyring.New(keyring.Config{Timeout: long})
	others := keyring.New(keyring.Config{Timeout: long, Service: "another-program"})
	mustSet(t, ours, account, value)
	if _, err := others.Get(t.Context(), account); !errors.Is(err, keyring.ErrNotFound) {
		t.Errorf("Get of another service = %v; want ErrNotFound", err)
	}
	wantValue(t, keyring.New(keyring.Config{Timeout: long, Service: "rbee-vault"}), value)
}

func TestValueSurvivesRestart(t *testing.T) {
	session := keyringtest.Start(t)
	k := keyring.New(keyring.Config{Timeout: long})
	mustSet(t, k, account, value)
	session.Restart(t)
	wantValue(t, k, value)
	session.RestartLocked(t)
	session.Restart(t)
	wantValue(t, k, value)
}

func TestLocked(t *testing.T) {
	session := keyringtest.Start(t)
	mustSet(t, keyring.New(keyring.Config{Timeout: long}), account, value)
	for _, how := range []struct {
		name string
		lock func(testing.TB)
	}{
		{"by its owner", session.Lock},
		{"since a start with a wrong password", session.RestartLocked},
	} {
		t.Run(how.name, func(t *testing.T) {
			how.lock(t)
			wantAll(t, keyring.Config{Timeout: long}, keyring.ErrLocked)
		})
	}
	session.Restart(t)
	wantValue(t, keyring.New(keyring.Config{Timeout: long}), value)
}

// On a machine without a display the prompt cannot be shown.
func TestLockedInteractiveWithoutDisplay(t *testing.T) {
	session := keyringtest.Start(t)
	session.RestartLocked(t)
	within(t, soon, func() {
		_, err := keyring.New(keyring.Config{Timeout: 5 * time.Second, Interactive: true}).Get(t.Context(), account)
		if !errors.Is(err, keyring.ErrDismissed) && !errors.Is(err, keyring.ErrTimeout) {
			t.Errorf("Get = %v; want ErrDismissed or ErrTimeout", err)
		}
		t.Log(err)
	})
}

func TestNoCollection(t *testing.T) {
	session := keyringtest.Start(t)
	session.RestartEmpty(t)
	wantAll(t, keyring.Config{Timeout: long}, keyring.ErrNoCollection)
	wantAll(t, keyring.Config{Timeout: long, Interactive: true}, keyring.ErrNoCollection)
}

func TestNoProvider(t *testing.T) {
	keyringtest.StartBus(t)
	wantAll(t, keyring.Config{Timeout: long}, keyring.ErrNoProvider)
	_, err := keyring.New(keyring.Config{Timeout: long}).Provider(t.Context())
	wantUnavailable(t, "Provider", err, keyring.ErrNoProvider)
}

// A desktop's bus starts its keyring when it is first needed.
func TestProviderOnDemand(t *testing.T) {
	session := keyringtest.StartBus(t)
	session.OnDemand(t, "/bin/false")
	wantAll(t, keyring.Config{Timeout: long}, keyring.ErrNoProvider)

	session.Restart(t) // makes the collection
	session.StopProvider(t)
	session.OnDemand(t, "/usr/bin/gnome-keyring-daemon --start --foreground --components=secrets")
	wantAll(t, keyring.Config{Timeout: long}, keyring.ErrLocked)
}

func TestProvider(t *testing.T) {
	session := keyringtest.Start(t)
	k := keyring.New(keyring.Config{Timeout: 3 * time.Second}) // also what answers has no longer
	form := regexp.MustCompile(`^gnome-keyring-daemon \(pid [0-9]+\)$`)
	if got, err := k.Provider(t.Context()); err != nil || !form.MatchString(got) {
		t.Errorf("Provider = %q, %v; want it to match %v", got, err, form)
	}

	// It also answers while a keyring is silent, and after a timeout.
	session.StopProvider(t)
	keyringtest.StartFake(t, session.Address(), keyringtest.Silent)
	_, err := k.Get(t.Context(), account)
	wantUnavailable(t, "Get", err, keyring.ErrTimeout)
	form = regexp.MustCompile(`^\S+ \(pid [0-9]+\)$`)
	if got, err := k.Provider(t.Context()); err != nil || !form.MatchString(got) {
		t.Errorf("Provider = %q, %v; want it to match %v", got, err, form)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Provider(ended); !errors.Is(err, context.Canceled) || errors.Is(err, keyring.ErrUnavailable) {
		t.Errorf("Provider with an ended context = %v; want context.Canceled alone", err)
	}
}

// Another program can add an item that a Set does not replace.
func TestPlantedBeside(t *testing.T) {
	session := keyringtest.Start(t)
	k := keyring.New(keyring.Config{Timeout: long})
	mustSet(t, k, account, value)
	session.Plant(t, "rbee-vault", account, keyringtest.PlantedValue)
	wantUnavailable(t, "Delete", k.Delete(t.Context(), account), keyring.ErrNotDeleted)
	if _, err := k.Get(t.Context(), account); err != nil {
		t.Errorf("Get of the one that is left: %v", err)
	}
	if err := k.Delete(t.Context(), account); err != nil {
		t.Errorf("Delete of the one that is left: %v", err)
	}
}

func TestUmbrella(t *testing.T) {
	for _, err := range []error{
		keyring.ErrNoBus, keyring.ErrNoProvider, keyring.ErrNoCollection, keyring.ErrLocked, keyring.ErrDismissed,
		keyring.ErrTimeout, keyring.ErrReadBack, keyring.ErrNotDeleted, keyring.ErrTooBig, keyring.ErrUnsupported,
	} {
		wrapped := fmt.Errorf("get: %w", err)
		if !errors.Is(wrapped, keyring.ErrUnavailable) || !errors.Is(wrapped, err) || errors.Is(wrapped, keyring.ErrNotFound) {
			t.Errorf("%v is not both itself and ErrUnavailable", err)
		}
	}
	for _, err := range []error{keyring.ErrNotFound, keyring.ErrInvalidValue} {
		if errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("%v is ErrUnavailable", err)
		}
	}
	if errors.Is(keyring.ErrLocked, keyring.ErrDismissed) {
		t.Error("one cause is another")
	}
}
