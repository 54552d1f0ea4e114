package vault

import (
	"embed"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var embedded embed.FS

// applicationID is "RBEE", in the header of the database.
const applicationID = 0x52424545

func (c Config) schema() fs.FS {
	if c.migrations != nil {
		return c.migrations
	}
	sub, err := fs.Sub(embedded, "migrations")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return sub
}

// SchemaVersion is the version of the schema that this program writes.
func SchemaVersion() int64 { return Config{}.schemaVersion() }

// schemaVersion is the number at the beginning of the newest migration's name.
func (c Config) schemaVersion() int64 {
	var newest int64
	names, _ := fs.Glob(c.schema(), "*.sql")
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		n, _ := strconv.ParseInt(number, 10, 64)
		newest = max(newest, n)
	}
	return newest
}
