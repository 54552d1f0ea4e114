package vault

import (
	"io/fs"
	"time"

	"filippo.io/age"
)

// WithMigrations gives tests a schema that the program does not have yet.
func (c Config) WithMigrations(migrations fs.FS) Config {
	c.migrations = migrations
	return c
}

// WithCheapPassphrases gives tests passphrase slots that take no time.
func (c Config) WithCheapPassphrases() Config {
	c.workFactor = 10
	return c
}

// ImpatientRecipient gives a plugin's recipient that waits no longer than that.
func ImpatientRecipient(s string, wait time.Duration) (age.Recipient, error) {
	r, err := newPluginRecipient(s, nil)
	if err != nil {
		return nil, err
	}
	p := r.(pluginRecipient)
	p.wait = wait
	return p, nil
}

// OnNetworkFS gives tests a file system that is named so.
func (c Config) OnNetworkFS(name string) Config {
	c.networkFS = func(string) (string, error) { return name, nil }
	return c
}
