package vault

import "github.com/rbee-keeper/rbee-vault/internal/sqlcipher"

// Engine is the database engine in this program: versions, and who does its cryptography.
type Engine = sqlcipher.Engine

// CurrentEngine returns the engine. It opens no file.
func CurrentEngine() (Engine, error) { return sqlcipher.CurrentEngine() }
