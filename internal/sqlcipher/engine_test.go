package sqlcipher

import (
	"strings"
	"testing"
)

func TestCurrentEngine(t *testing.T) {
	e, err := CurrentEngine()
	if err != nil || e.SQLite != "3.33.0" || !strings.HasPrefix(e.SQLCipher, "4.") || e.Provider == "" {
		t.Errorf("%+v, %v", e, err)
	}
}
