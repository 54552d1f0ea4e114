package backup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestKeep: which of these moments each rule keeps.
func TestKeep(t *testing.T) {
	moments := strings.Fields("2026-03-10T12 2026-03-10T06 2026-03-09T23 2026-03-08T23 2026-03-08T01 2026-02-27T10 2026-01-31T10 2025-12-31T10 2025-12-01T10")
	var created []time.Time
	for _, m := range moments {
		at, err := time.Parse("2006-01-02T15", m)
		if err != nil {
			t.Fatal(err)
		}
		created = append(created, at)
	}
	for _, tt := range []struct {
		keep Keep
		want string
	}{
		{Keep{Last: 2}, "0 1"},
		{Keep{Last: 100}, "0 1 2 3 4 5 6 7 8"},
		{Keep{Daily: 3}, "0 2 3"},
		{Keep{Daily: 4}, "0 2 3 5"},
		{Keep{Weekly: 2}, "0 3"}, // 2026-03-09 is a Monday
		{Keep{Weekly: 3}, "0 3 5"},
		{Keep{Monthly: 4}, "0 5 6 7"},
		{Keep{Within: 6 * time.Hour}, "0 1"},
		{Keep{Within: 48 * time.Hour}, "0 1 2 3"},
		{Keep{Last: 1, Daily: 2, Monthly: 3}, "0 2 5 6"},
	} {
		var kept []string
		for i, k := range tt.keep.choose(created) {
			if k {
				kept = append(kept, fmt.Sprint(i))
			}
		}
		if got := strings.Join(kept, " "); got != tt.want {
			t.Errorf("%+v keeps %s, want %s", tt.keep, got, tt.want)
		}
	}
	for _, k := range []Keep{{}, {Last: -1, Daily: 2}} {
		if err := k.validate(); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%+v: %v", k, err)
		}
	}
}
