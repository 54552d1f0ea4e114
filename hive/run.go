package hive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrUnknownOutcome: the connection ended while a command ran on the node. It may have
// done all of its work, a part, or nothing, and it may still be running.
var ErrUnknownOutcome = errors.New("what the command did is not known")

// interruptGrace is how long a command that was interrupted may take to end.
const interruptGrace = 2 * time.Second

// Exit is how a command on a node ended.
type Exit struct {
	Status int
	Signal string // such as "KILL", where one ended it; Status is then 128 or more
}

// Run runs a command in the shell of the node's user, and returns how it ended: a status
// other than 0 is no error. It reads nothing. When ctx ends, the command gets the signal INT,
// and a while later the connection is closed; the error then matches ctx's, and
// [ErrUnknownOutcome] unless the command ended in time.
func (c *Conn) Run(ctx context.Context, command string, stdout, stderr io.Writer) (Exit, error) {
	session, err := c.NewSession()
	if err != nil {
		return Exit{}, fmt.Errorf("%w: open session: %w", ErrProtocol, err)
	}
	defer session.Close()
	session.Stdout, session.Stderr = stdout, stderr
	if err := session.Start(command); err != nil {
		return Exit{}, fmt.Errorf("%w: start command: %w", ErrProtocol, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	select {
	case err := <-ended:
		return exitOf(err)
	case <-ctx.Done():
	}
	session.Signal(ssh.SIGINT) // a server that is old ignores it
	select {
	case err := <-ended:
		exit, err := exitOf(err)
		return exit, errors.Join(ctx.Err(), err)
	case <-time.After(interruptGrace):
	}
	c.Client.Close()
	<-ended
	return Exit{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
}

// exitOf reads what Wait returned.
func exitOf(err error) (Exit, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return Exit{}, nil
	case errors.As(err, &exit):
		return Exit{Status: exit.ExitStatus(), Signal: exit.Signal()}, nil
	}
	return Exit{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}
