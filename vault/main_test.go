package vault_test

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("RBEE_CRASH"); spec != "" {
		crashChild(spec)
	}
	os.Exit(m.Run())
}
