package vault

import "io/fs"

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
