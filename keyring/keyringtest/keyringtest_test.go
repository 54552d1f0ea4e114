package keyringtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

func TestMemory(t *testing.T) {
	var m keyringtest.Memory
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return &m })
	if diff := cmp.Diff(map[string]string{}, m.Items()); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
}

// What a Fake does beside its fault is what a real keyring does.
func TestHonestFake(t *testing.T) {
	session := keyringtest.StartBus(t)
	keyringtest.StartFake(t, session.Address(), keyringtest.Honest)
	k := keyring.New(keyring.Config{Timeout: time.Minute})
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
}

func TestMemoryHook(t *testing.T) {
	fault := errors.New("fault")
	operations := map[string]func(m *keyringtest.Memory) error{
		"get":    func(m *keyringtest.Memory) error { _, err := m.Get(t.Context(), "a"); return err },
		"set":    func(m *keyringtest.Memory) error { return m.Set(t.Context(), "a", "new") },
		"delete": func(m *keyringtest.Memory) error { return m.Delete(t.Context(), "a") },
	}
	for _, row := range []struct {
		op     string
		before bool
		want   map[string]string
	}{
		{"get", true, map[string]string{"a": "old"}},
		{"get", false, map[string]string{"a": "old"}},
		{"set", true, map[string]string{"a": "old"}},
		{"set", false, map[string]string{"a": "new"}},
		{"delete", true, map[string]string{"a": "old"}},
		{"delete", false, map[string]string{}},
	} {
		var m keyringtest.Memory
		if err := m.Set(t.Context(), "a", "old"); err != nil {
			t.Fatal(err)
		}
		var calls []string
		m.Hook = func(op, account string, before bool) error {
			calls = append(calls, op+" "+account)
			if before == row.before {
				return fault
			}
			return nil
		}
		if err := operations[row.op](&m); !errors.Is(err, fault) {
			t.Errorf("%s, before %v: %v; want the fault", row.op, row.before, err)
		}
		if diff := cmp.Diff(row.want, m.Items()); diff != "" {
			t.Errorf("%s, before %v: items (-want +got):\n%s", row.op, row.before, diff)
		}
		wantCalls := []string{row.op + " a"}
		if !row.before {
			wantCalls = append(wantCalls, row.op+" a")
		}
		if diff := cmp.Diff(wantCalls, calls); diff != "" {
			t.Errorf("%s, before %v: calls (-want +got):\n%s", row.op, row.before, diff)
		}
	}
}
