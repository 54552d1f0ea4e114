package identity

import (
	"errors"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/plugintest"
)

// TestHungPluginIsGivenUp: a call of a plugin that does not answer ends by itself.
func TestHungPluginIsGivenUp(t *testing.T) {
	plugintest.Install(t)
	r, err := newPluginRecipient(plugintest.NewKey(t, false).HangingTo, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := r.(pluginRecipient)
	p.wait = 10 * time.Millisecond
	if _, err := p.Wrap(make([]byte, 16)); !errors.Is(err, ErrPlugin) {
		t.Errorf("%v, want ErrPlugin", err)
	}
}
