package vault

import (
	"context"
	"errors"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// SQLite compares the jumps of nodes with the nodes at the commit only. In a shared commit the
// jump of one caller would then fail the changes of all. So each caller's function is checked at
// its end, if it may have left a jump to a node that does not exist: triggers of the connection
// that writes notice that. No other foreign key of the schema is deferred.

// danglingFunction is the SQL function that the triggers call.
const danglingFunction = "rbee_dangling"

const danglingTriggers = `
	CREATE TEMP TRIGGER rbee_jump_inserted AFTER INSERT ON main.node_details
	WHEN NEW.proxy_jump NOT IN (SELECT node_name FROM main.beehives)
	BEGIN SELECT rbee_dangling(); END;

	CREATE TEMP TRIGGER rbee_jump_updated AFTER UPDATE OF proxy_jump ON main.node_details
	WHEN NEW.proxy_jump NOT IN (SELECT node_name FROM main.beehives)
	BEGIN SELECT rbee_dangling(); END;

	CREATE TEMP TRIGGER rbee_jump_deleted AFTER DELETE ON main.beehives
	WHEN OLD.node_name IN (SELECT proxy_jump FROM main.node_details)
	BEGIN SELECT rbee_dangling(); END;`

// noticeDangling creates the triggers on a new write connection. They set dangling.
func noticeDangling(conn *sqlcipher.Conn, dangling *bool) error {
	notice := func() int64 {
		*dangling = true
		return 0
	}
	if err := conn.Function(danglingFunction, notice); err != nil {
		return err
	}
	return conn.Exec(danglingTriggers)
}

// checkJumps returns an error if a node is reached through one that does not exist.
func (tx *Tx) checkJumps(ctx context.Context) error {
	var found bool
	err := tx.QueryRowContext(ctx, `
		SELECT EXISTS (
			SELECT 1 FROM node_details
			WHERE proxy_jump NOT IN (SELECT node_name FROM beehives)
		)`).Scan(&found)
	if err == nil && found {
		err = errors.New("commit: a node is reached through one that does not exist")
	}
	return err
}
