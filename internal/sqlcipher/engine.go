package sqlcipher

import (
	"database/sql/driver"
	"fmt"
	"io"
	"strings"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"
)

// Engine is what works under this package.
type Engine struct {
	SQLite    string // version
	SQLCipher string // version
	Provider  string // of the cryptography, with its version
}

// CurrentEngine asks the driver. It opens no file.
func CurrentEngine() (Engine, error) {
	version, _, _ := sqlite3.Version()
	e := Engine{SQLite: version}
	conn, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
	if err != nil {
		return e, fmt.Errorf("ask the database engine: %w", err)
	}
	defer conn.Close()
	// Without a key there is no cryptography to ask about.
	if _, err := conn.(*sqlite3.SQLiteConn).Exec("PRAGMA key = 'nothing is stored'", nil); err != nil {
		return e, fmt.Errorf("ask the database engine: %w", err)
	}
	var provider, providerVersion string
	for pragma, to := range map[string]*string{"cipher_version": &e.SQLCipher, "cipher_provider": &provider, "cipher_provider_version": &providerVersion} {
		rows, err := conn.(*sqlite3.SQLiteConn).Query("PRAGMA "+pragma, nil)
		if err != nil {
			return e, fmt.Errorf("ask the database engine: %w", err)
		}
		value := make([]driver.Value, 1)
		if err := rows.Next(value); err != nil && err != io.EOF {
			rows.Close()
			return e, fmt.Errorf("ask the database engine: %w", err)
		}
		rows.Close()
		switch text := value[0].(type) {
		case string:
			*to = text
		case []byte:
			*to = string(text)
		}
	}
	e.Provider = strings.TrimSpace(provider + " " + providerVersion)
	return e, nil
}
