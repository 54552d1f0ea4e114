package keyring_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// success is the entry of tables in which no error is wanted.
var success error

func TestFaults(t *testing.T) {
	session := keyringtest.StartBus(t)
	for _, row := range []struct {
		name             string
		mode             keyringtest.Mode
		cfg              keyring.Config
		get, set, delete error
	}{
		{
			"silent", keyringtest.Silent, keyring.Config{Timeout: short},
			keyring.ErrTimeout, keyring.ErrTimeout, keyring.ErrTimeout,
		},
		{
			"stalled", keyringtest.Stalled, keyring.Config{Timeout: short},
			keyring.ErrTimeout, keyring.ErrTimeout, keyring.ErrTimeout,
		},
		{
			"lying", keyringtest.Lying, keyring.Config{Timeout: long},
			keyring.ErrNotFound, keyring.ErrReadBack, success,
		},
		{
			"planted", keyringtest.Planted, keyring.Config{Timeout: long},
			success, keyring.ErrReadBack, keyring.ErrNotDeleted,
		},
		{
			"dismissed prompt", keyringtest.DismissedPrompt, keyring.Config{Timeout: long, Interactive: true},
			keyring.ErrDismissed, keyring.ErrDismissed, keyring.ErrDismissed,
		},
		{
			"dismissed prompt that may not be shown", keyringtest.DismissedPrompt, keyring.Config{Timeout: long},
			keyring.ErrLocked, keyring.ErrLocked, keyring.ErrLocked,
		},
		{
			"unanswered prompt", keyringtest.UnansweredPrompt, keyring.Config{Timeout: short, Interactive: true},
			keyring.ErrTimeout, keyring.ErrTimeout, keyring.ErrTimeout,
		},
		{
			"unanswered prompt that may not be shown", keyringtest.UnansweredPrompt, keyring.Config{Timeout: long},
			keyring.ErrLocked, keyring.ErrLocked, keyring.ErrLocked,
		},
		{
			// The keyring library panics here.
			"garbled prompt", keyringtest.GarbledPrompt, keyring.Config{Timeout: long, Interactive: true},
			keyring.ErrDismissed, keyring.ErrDismissed, keyring.ErrDismissed,
		},
		{
			"no collection", keyringtest.NoCollection, keyring.Config{Timeout: long},
			keyring.ErrNoCollection, keyring.ErrNoCollection, keyring.ErrNoCollection,
		},
		{
			"refusing", keyringtest.Refusing, keyring.Config{Timeout: long},
			keyring.ErrNotFound, keyring.ErrUnavailable, success,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			fake := keyringtest.StartFake(t, session.Address(), row.mode)
			defer fake.Stop()
			check := func(op string, err, want error) {
				t.Helper()
				switch want {
				case success, keyring.ErrNotFound:
					if !errors.Is(err, want) || errors.Is(err, keyring.ErrUnavailable) {
						t.Errorf("%s = %v; want %v", op, err, want)
					}
				default:
					wantUnavailable(t, op, err, want)
				}
			}
			within(t, soon, func() {
				_, err := keyring.New(row.cfg).Get(t.Context(), account)
				check("Get", err, row.get)
			})
			within(t, soon, func() {
				values, err := keyring.New(row.cfg).GetAll(t.Context(), account, account)
				if row.get == keyring.ErrNotFound && err == nil && slices.Equal(values, []string{"", ""}) {
					err = keyring.ErrNotFound
				}
				check("GetAll", err, row.get)
			})
			within(t, soon, func() { check("Set", keyring.New(row.cfg).Set(t.Context(), account, value), row.set) })
			within(t, soon, func() { check("Delete", keyring.New(row.cfg).Delete(t.Context(), account), row.delete) })
		})
	}
}

// Get does not check a value. The caller knows what it must look like.
func TestPlantedValueIsReturned(t *testing.T) {
	session := keyringtest.StartBus(t)
	fake := keyringtest.StartFake(t, session.Address(), keyringtest.Planted)
	k := keyring.New(keyring.Config{Timeout: long})
	wantValue(t, k, keyringtest.PlantedValue)
	fake.Plant("anything\nat all")
	wantValue(t, k, "anything\nat all")
}

// A keyring that does not give several values at once is asked for one after the other.
func TestGetAll(t *testing.T) {
	session := keyringtest.StartBus(t)
	for name, mode := range map[string]keyringtest.Mode{"honest": keyringtest.Honest, "withholding": keyringtest.Withholding} {
		t.Run(name, func(t *testing.T) {
			fake := keyringtest.StartFake(t, session.Address(), mode)
			defer fake.Stop()
			k := keyring.New(keyring.Config{Timeout: long})
			mustSet(t, k, account, value)
			mustSet(t, k, "other", "another value")
			got, err := k.GetAll(t.Context(), "other", "none", account)
			if want := []string{"another value", "", value}; err != nil || !slices.Equal(got, want) {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
}

// A deadline finishes its Keyring and no other one.
func TestDeadlineFinishes(t *testing.T) {
	for _, row := range []struct {
		name string
		mode keyringtest.Mode
		cfg  keyring.Config
	}{
		{"silent", keyringtest.Silent, keyring.Config{Timeout: short}},
		{"stalled", keyringtest.Stalled, keyring.Config{Timeout: short}},
		{"unanswered prompt", keyringtest.UnansweredPrompt, keyring.Config{Timeout: short, Interactive: true}},
	} {
		t.Run(row.name, func(t *testing.T) {
			session := keyringtest.Start(t)
			mustSet(t, keyring.New(keyring.Config{Timeout: long}), account, value)
			session.StopProvider(t)
			fake := keyringtest.StartFake(t, session.Address(), row.mode)
			k := keyring.New(row.cfg)
			_, err := k.Get(t.Context(), account)
			wantUnavailable(t, "Get", err, keyring.ErrTimeout)

			fake.Stop()
			session.Restart(t)
			_, err = k.Get(t.Context(), account)
			wantUnavailable(t, "Get after the deadline", err, keyring.ErrTimeout)
			wantValue(t, keyring.New(keyring.Config{Timeout: long}), value)
		})
	}
}

// A caller that waits for a turn does not wait longer than for the keyring itself.
func TestDeadlineWhileWaiting(t *testing.T) {
	session := keyringtest.StartBus(t)
	keyringtest.StartFake(t, session.Address(), keyringtest.Stalled)
	k := keyring.New(keyring.Config{Timeout: short})
	within(t, soon, func() {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				_, err := k.Get(t.Context(), account)
				wantUnavailable(t, "Get", err, keyring.ErrTimeout)
			})
		}
		wg.Wait()
	})
}

// When a context ends, that is not the keyring's fault, and the Keyring can still be used.
func TestContextEnds(t *testing.T) {
	session := keyringtest.StartBus(t)
	for _, row := range []struct {
		name string
		end  func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{
		{
			"cancelled",
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(short, cancel) // during the call, or before it: both must work
				return ctx, cancel
			},
			context.Canceled,
		},
		{
			"its own deadline",
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, short)
			},
			context.DeadlineExceeded,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			fake := keyringtest.StartFake(t, session.Address(), keyringtest.Stalled)
			k := keyring.New(keyring.Config{Timeout: long})
			for _, who := range []string{"the caller", "one who waits for a turn"} {
				ctx, cancel := row.end(t.Context())
				defer cancel()
				within(t, soon, func() {
					_, err := k.Get(ctx, account)
					if !errors.Is(err, row.want) {
						t.Errorf("Get of %s = %v; want %v", who, err, row.want)
					}
					if timeout := row.want == context.DeadlineExceeded; errors.Is(err, keyring.ErrTimeout) != timeout {
						t.Errorf("Get of %s = %v; ErrTimeout should be %v", who, err, timeout)
					}
				})
			}

			// When the abandoned call is over, the Keyring works again.
			fake.Stop()
			fake = keyringtest.StartFake(t, session.Address(), keyringtest.Honest)
			defer fake.Stop()
			within(t, soon, func() { mustSet(t, k, account, value) })
			wantValue(t, k, value)
		})
	}
}

// Here the keyring library reads a nil signal.
func TestBusEndsDuringPrompt(t *testing.T) {
	session := keyringtest.StartBus(t)
	fake := keyringtest.StartFake(t, session.Address(), keyringtest.UnansweredPrompt)
	k := keyring.New(keyring.Config{Timeout: long, Interactive: true})
	go func() {
		<-fake.Prompted()
		session.StopBus(t)
	}()
	within(t, soon, func() {
		_, err := k.Get(t.Context(), account)
		wantUnavailable(t, "Get", err, keyring.ErrNoBus)
	})
}
