package hive

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// authorizedKeysScript runs on every node as it is. What to do follows it, as a
// here-document in which the shell expands nothing: a shell may read ahead, so that "read"
// would not find it.
//
//go:embed authorized_keys.sh
var authorizedKeysScript string

const authorizedKeysFormat = "rbee-authorized-keys 1"

var (
	// ErrNotAuthorized: the line was not added to the node's authorized_keys, which is what
	// it was. The node may have no POSIX shell, force a command, or keep its keys elsewhere.
	ErrNotAuthorized = errors.New("the key was not installed")
	// ErrNotRemoved: the old key was not removed from the node's authorized_keys, which is
	// what it was.
	ErrNotRemoved = errors.New("the old key was not removed")
)

// Authorize adds a public key line to the authorized_keys of the user who is logged in, and
// reports whether it was missing: a key that is there already, with whatever options, is
// left alone. The file is replaced as a whole; its mode, and a link that leads to it, stay.
// A server may read other files, so only a login proves that the key is accepted. Errors:
// [ErrNotAuthorized], [ErrUnknownOutcome], or ctx's own.
func (c *Conn) Authorize(ctx context.Context, line string) (added bool, err error) {
	answer, err := c.changeKeys(ctx, "install", line, line, ErrNotAuthorized)
	return answer == "added", err
}

// AuthorizeLike is [Conn.Authorize] with the options of the line that holds another key: it
// lets the new key do what the old one may, and no more. old is a public key line. Where the
// file does not hold it, the error is [ErrNotAuthorized].
func (c *Conn) AuthorizeLike(ctx context.Context, line, old string) (added bool, err error) {
	answer, err := c.changeKeys(ctx, "add", line, old, ErrNotAuthorized)
	return answer == "added", err
}

// Deauthorize removes the lines of a key from the authorized_keys of the user who is logged
// in, and reports whether there was one. Both keys are public key lines. A file that holds
// the old key and not the new one is left alone. Where the server reads another file too,
// the old key goes on working, so only a refused login proves that it does not. Errors:
// [ErrNotRemoved], [ErrUnknownOutcome], or ctx's own.
func (c *Conn) Deauthorize(ctx context.Context, old, new string) (removed bool, err error) {
	answer, err := c.changeKeys(ctx, "remove", new, old, ErrNotRemoved)
	return answer == "removed", err
}

// Authorizes reports whether the authorized_keys of the user who is logged in holds a key,
// with whatever options. Errors: [ErrProtocol], [ErrUnknownOutcome], or ctx's own.
func (c *Conn) Authorizes(ctx context.Context, line string) (bool, error) {
	answer, err := c.changeKeys(ctx, "find", line, line, ErrProtocol)
	return answer == "present", err
}

func (c *Conn) changeKeys(ctx context.Context, what, line, old string, failure error) (answer string, err error) {
	fields := strings.Fields(old)
	if len(fields) < 2 || strings.ContainsAny(line+old, "\r\n") {
		return "", fmt.Errorf("%w: not one line", failure)
	}
	s := fixedScript{authorizedKeysScript, authorizedKeysFormat, failure}
	if answer, err = c.runScript(ctx, s, what, fields[1], line); err != nil {
		return "", err
	}
	switch answer {
	case "added", "present", "removed", "absent":
		return answer, nil
	}
	return "", fmt.Errorf("%w: the script did not come to its end", ErrUnknownOutcome)
}

// fixedScript is a shell script that ends with the beginning of a here-document. It says its
// format and then one line: how it went, or "failed" and why.
type fixedScript struct {
	text    string
	format  string
	failure error // the sentinel for a script that changed nothing
}

// runScript runs a script with its input and returns what it says behind its format, which
// may be cut short. Errors: the script's failure, [ErrUnknownOutcome], or ctx's own.
func (c *Conn) runScript(ctx context.Context, s fixedScript, input ...string) (answer string, err error) {
	session, err := c.NewSession()
	if err != nil {
		return "", fmt.Errorf("%w: %w", s.failure, err)
	}
	defer session.Close()
	out := &limitedBuffer{left: maxDiscovery, exceeded: func() { session.Close() }}
	session.Stdin = strings.NewReader(s.text + strings.Join(input, "\n") + "\nEND-OF-KEY\n")
	session.Stdout = out
	session.Stderr = io.Discard
	ended := make(chan error, 1)
	go func() { ended <- session.Run("sh -s") }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		session.Close()
		<-ended
		return "", fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
	_, answer, ok := strings.Cut(out.b.String(), s.format+"\n") // a shell may greet before
	answer = strings.TrimSpace(answer)
	if reason, failed := strings.CutPrefix(answer, "failed "); failed {
		return "", fmt.Errorf("%w: %s", s.failure, wire.Shorten(wire.Clean(reason), 300))
	}
	if !ok && out.left >= 0 {
		return "", fmt.Errorf("%w: the node runs no POSIX shell for a login", s.failure)
	}
	if answer == "" {
		return "", fmt.Errorf("%w: the script did not come to its end: %v", ErrUnknownOutcome, err)
	}
	return answer, nil
}
