package hive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// run dials the node and runs a command there.
func run(ctx context.Context, t *testing.T, f fleet, node, command string) (hive.Exit, string, string, error) {
	t.Helper()
	conn, err := f.dialer().Dial(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var stdout, stderr bytes.Buffer
	exit, err := conn.Run(ctx, command, &stdout, &stderr)
	return exit, stdout.String(), stderr.String(), err
}

func TestRun(t *testing.T) {
	f := newFleet(t)
	f.addServer(t, "hive-01", sshdtest.Start(t, f.authorized), ssh.KeyAlgoED25519)
	exit, stdout, stderr, err := run(t.Context(), t, f, "hive-01", "echo out; echo err >&2; cat; exit 3")
	if err != nil || exit != (hive.Exit{Status: 3}) || stdout != "out\n" || stderr != "err\n" {
		t.Errorf("%+v, %q, %q, %v", exit, stdout, stderr, err)
	}
	if exit, _, _, err = run(t.Context(), t, f, "hive-01", "kill -KILL $$"); err != nil || exit.Signal != "KILL" || exit.Status == 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// started is a writer that closes a channel with the first byte.
type started chan struct{}

func (s started) Write(p []byte) (int, error) {
	select {
	case <-s:
	default:
		close(s)
	}
	return len(p), nil
}

// TestRunInterrupted: a command gets the chance to end, and one that does not take it may
// have done anything.
func TestRunInterrupted(t *testing.T) {
	f := newFleet(t)
	f.addServer(t, "goes-on", sshdtest.Start(t, f.authorized), ssh.KeyAlgoED25519)
	host, port, key, _ := serveSSH(t, func(out io.Writer, signals <-chan string) uint32 {
		io.WriteString(out, "on")
		if <-signals == "INT" {
			return 7
		}
		return 1
	})
	f.add(t, "ends", host, port, "ops", key)
	for _, row := range []struct {
		node    string
		unknown bool
		status  int
	}{
		{"ends", false, 7},
		{"goes-on", true, 0},
	} {
		t.Run(row.node, func(t *testing.T) {
			conn, err := f.dialer().Dial(t.Context(), row.node)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithCancel(t.Context())
			on := make(started)
			go func() {
				<-on
				cancel()
			}()
			exit, err := conn.Run(ctx, `trap '' INT; echo on; while kill -0 $PPID; do sleep 0.1; done`, on, io.Discard)
			if !errors.Is(err, context.Canceled) || errors.Is(err, hive.ErrUnknownOutcome) != row.unknown || exit.Status != row.status {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
}

// TestRunCut: the connection is gone while the command runs.
func TestRunCut(t *testing.T) {
	f := newFleet(t)
	f.addServer(t, "hive-01", sshdtest.Start(t, f.authorized), ssh.KeyAlgoED25519)
	if _, _, _, err := run(t.Context(), t, f, "hive-01", "kill -KILL $PPID; sleep 100"); !errors.Is(err, hive.ErrUnknownOutcome) {
		t.Errorf("%v, want ErrUnknownOutcome", err)
	}
}
