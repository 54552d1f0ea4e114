package hive

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
)

// replaceKeyScript runs on every node as it is. What to do follows it; see authorizeScript.
//
//go:embed replace_key.sh
var replaceKeyScript string

const replaceKeyFormat = "rbee-replace-key 1"

// ErrNotRemoved: the old key was not removed from the node's authorized_keys, which is what
// it was.
var ErrNotRemoved = errors.New("the old key was not removed")

// AuthorizeLike is [Conn.Authorize] with the options of the line that holds another key: it
// lets the new key do what the old one may, and no more. old is a public key line. Where the
// file does not hold it, the error is [ErrNotAuthorized].
func (c *Conn) AuthorizeLike(ctx context.Context, line, old string) (added bool, err error) {
	answer, err := c.replaceKey(ctx, "add", line, old, ErrNotAuthorized)
	return answer == "added", err
}

// Deauthorize removes the lines of a key from the authorized_keys of the user who is logged
// in, and reports whether there was one. Both keys are public key lines. A file that holds
// the old key and not the new one is left alone. Where the server reads another file too,
// the old key goes on working, so only a refused login proves that it does not. Errors:
// [ErrNotRemoved], [ErrUnknownOutcome], or ctx's own.
func (c *Conn) Deauthorize(ctx context.Context, old, new string) (removed bool, err error) {
	answer, err := c.replaceKey(ctx, "remove", new, old, ErrNotRemoved)
	return answer == "removed", err
}

// Authorizes reports whether the authorized_keys of the user who is logged in holds a key,
// with whatever options. Errors: [ErrProtocol], [ErrUnknownOutcome], or ctx's own.
func (c *Conn) Authorizes(ctx context.Context, line string) (bool, error) {
	answer, err := c.replaceKey(ctx, "find", line, line, ErrProtocol)
	return answer == "present", err
}

func (c *Conn) replaceKey(ctx context.Context, what, line, old string, failure error) (answer string, err error) {
	fields := strings.Fields(old)
	if len(fields) < 2 || strings.ContainsAny(line+old, "\r\n") {
		return "", fmt.Errorf("%w: not one line", failure)
	}
	s := fixedScript{replaceKeyScript, replaceKeyFormat, failure}
	if answer, err = c.runScript(ctx, s, what, fields[1], line); err != nil {
		return "", err
	}
	switch answer {
	case "added", "present", "removed", "absent":
		return answer, nil
	}
	return "", fmt.Errorf("%w: the script did not come to its end", ErrUnknownOutcome)
}
