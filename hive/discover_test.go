package hive_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

func TestDiscover(t *testing.T) {
	f := newFleet(t)
	for name, row := range map[string]struct {
		options []string
		ok      bool
	}{
		"plain":      {nil, true},
		"noise":      {[]string{`ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"`}, true},
		"no shell":   {[]string{"ForceCommand echo no"}, false},
		"cut":        {[]string{"ForceCommand echo rbee-discover 1"}, false},
		"never ends": {[]string{"ForceCommand yes"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := sshdtest.Start(t, f.authorized, row.options...)
			node := strings.ReplaceAll(name, " ", "-")
			f.addServer(t, node, server, ssh.KeyAlgoED25519)
			conn, err := f.dialer().Dial(t.Context(), node)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			m, err := conn.Discover(t.Context())
			if !row.ok {
				if !errors.Is(err, hive.ErrDiscovery) {
					t.Errorf("%v, want ErrDiscovery", err)
				}
				return
			}
			backends, devices := m.Backends()
			if err != nil || !strings.HasPrefix(m.OS, "Linux ") || m.CPUs == 0 || m.Memory == 0 || m.Disk == 0 || len(backends) == 0 || devices["cpu"] != 1 {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}
