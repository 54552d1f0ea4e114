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
	answer, err := c.runScript(ctx, fixedScript{authorizeScript, authorizeFormat, ErrNotAuthorized}, line)
	if err != nil {
		return false, err
	}
	switch answer {
	case "added":
		return true, nil
	case "present":
		return false, nil
	}
	return false, fmt.Errorf("%w: the script did not come to its end", ErrUnknownOutcome)
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
