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

// authorizeScript runs on every node as it is. The line follows it, as a here-document in
// which the shell expands nothing: a shell may read ahead, so that "read" would not find it.
//
//go:embed authorize.sh
var authorizeScript string

const authorizeFormat = "rbee-authorize 1"

// ErrNotAuthorized: the line was not added to the node's authorized_keys, which is what it
// was. The node may have no POSIX shell, force a command, or keep its keys elsewhere.
var ErrNotAuthorized = errors.New("the key was not installed")

// Authorize adds a public key line to the authorized_keys of the user who is logged in, and
// reports whether it was missing: a key that is there already, with whatever options, is
// left alone. The file is replaced as a whole; its mode, and a link that leads to it, stay.
// A server may read other files, so only a login proves that the key is accepted. Errors:
// [ErrNotAuthorized], [ErrUnknownOutcome], or ctx's own.
func (c *Conn) Authorize(ctx context.Context, line string) (added bool, err error) {
	if strings.ContainsAny(line, "\r\n") {
		return false, fmt.Errorf("%w: not one line", ErrNotAuthorized)
	}
	session, err := c.NewSession()
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotAuthorized, err)
	}
	defer session.Close()
	out := &limitedBuffer{left: maxDiscovery, exceeded: func() { session.Close() }}
	session.Stdin = strings.NewReader(authorizeScript + line + "\nEND-OF-KEY\n")
	session.Stdout = out
	session.Stderr = io.Discard
	ended := make(chan error, 1)
	go func() { ended <- session.Run("sh -s") }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		session.Close()
		<-ended
		return false, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
	_, answer, ok := strings.Cut(out.b.String(), authorizeFormat+"\n") // a shell may greet before
	switch answer = strings.TrimSpace(answer); {
	case answer == "added":
		return true, nil
	case answer == "present":
		return false, nil
	case strings.HasPrefix(answer, "failed "):
		return false, fmt.Errorf("%w: %s", ErrNotAuthorized, wire.Shorten(wire.Clean(strings.TrimPrefix(answer, "failed ")), 300))
	case !ok && out.left >= 0:
		return false, fmt.Errorf("%w: the node runs no POSIX shell for a login", ErrNotAuthorized)
	}
	return false, fmt.Errorf("%w: the script did not come to its end: %v", ErrUnknownOutcome, err)
}
