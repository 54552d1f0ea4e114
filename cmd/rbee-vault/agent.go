package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/agent"
	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

func newAgent(a *app) *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Serve the vault's keys to ssh, each for its own pinned hosts only",
		Long: `Serve the keys of the vault to ssh, as ssh-agent does, until Ctrl-C or SIGTERM. A key is
listed and signs only on a connection to a host whose key is pinned for one of the nodes
that use it; each signature is in the audit log. So "ssh-add -l" shows nothing:
"rbee-vault agent status" does. It needs OpenSSH 8.9 or later.

The socket is agent.sock in $XDG_RUNTIME_DIR/rbee-vault, or the one that systemd passes.

The agent goes on through a "rbee-vault rotate". It opens the vault again without a
question: by the keyring if that is unlocked, or by what opened it before.`,
		Example: `  rbee-vault agent &
  SSH_AUTH_SOCK=$XDG_RUNTIME_DIR/rbee-vault/agent.sock ssh ops@hive-01.example.org
  rbee-vault agent --confirm --lock-after 30m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), a, o) },
	}
	o.register(cmd)
	cmd.AddCommand(newAgentStatus(a), newAgentLock(a), newAgentUnlock(a))
	return cmd
}

type agentOptions struct {
	socketOptions
	allowUnbound       []string
	confirm            bool
	lockAfter          time.Duration
	lockPassphraseFile string
}

func (o *agentOptions) register(cmd *cobra.Command) {
	o.socketOptions.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.allowUnbound, "allow-unbound", nil, "let the key `KEY` also sign files for any of your programs, as git does; never a login; repeatable")
	f.BoolVar(&o.confirm, "confirm", false, "ask before each signature, by the program $SSH_ASKPASS")
	f.DurationVar(&o.lockAfter, "lock-after", 0, "lock the agent after this time without a signature (default: never)")
	f.StringVar(&o.lockPassphraseFile, "lock-passphrase-file", "", "with --lock-after: read the passphrase that unlocks it from the only line of `FILE`, '-' or 'fd:N'")
}

func (o agentOptions) check() error {
	switch {
	case o.lockAfter < 0:
		return usagef("--lock-after must be more than 0")
	case o.lockPassphraseFile != "" && o.lockAfter == 0:
		return usagef("--lock-passphrase-file needs --lock-after")
	}
	return nil
}

// socketOptions say where the agent's socket is.
type socketOptions struct {
	socket string
}

func (o *socketOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.socket, "socket", "", "the agent's socket `PATH` (default $XDG_RUNTIME_DIR/rbee-vault/agent.sock)")
}

func (o socketOptions) path() (string, error) { return socketPath(o.socket, "agent.sock") }

// socketPath is the path that the operator gave, or the one with this name in the directory
// for the user's sockets.
func socketPath(given, name string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) {
		return "", usagef("$XDG_RUNTIME_DIR is not set, so --socket PATH is needed")
	}
	return filepath.Join(dir, "rbee-vault", name), nil
}

// listen returns the socket that the service manager passes, or makes one.
func (o socketOptions) listen() (*net.UnixListener, error) {
	if o.socket == "" {
		if l, err := unixsocket.Inherited(os.Getenv); l != nil || err != nil {
			return l, err
		}
	}
	path, err := o.path()
	if err != nil {
		return nil, err
	}
	return unixsocket.Listen(path)
}

type agentJSON struct {
	Socket string `json:"socket"`
}

func runAgent(ctx context.Context, a *app, o agentOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	cfg := agent.Config{IdleLock: o.lockAfter, Logger: a.ui.logger()}
	if o.confirm {
		program, err := askpassProgram(os.Getenv)
		if err != nil {
			return err
		}
		cfg.Confirm = askpass(program).confirm
	}
	l, err := o.listen() // before anything is asked
	if err != nil {
		return err
	}
	defer l.Close()
	if o.lockAfter > 0 {
		if o.lockPassphraseFile == "" {
			a.ui.say("This passphrase unlocks the agent after it has locked itself.")
		}
		if cfg.Passphrase, err = a.newLockPassphrase(ctx, o.lockPassphraseFile); err != nil {
			return err
		}
		defer clear(cfg.Passphrase)
	}
	s, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	err = serveAgent(ctx, a, s, l, cfg, o.allowUnbound)
	if e := s.Close(); err == nil {
		err = e
	}
	return err
}

// serveAgent serves until ctx ends, which is no error.
func serveAgent(ctx context.Context, a *app, s *registry.Session, l *net.UnixListener, cfg agent.Config, unbound []string) error {
	cfg.Registry = s.Use
	err := s.Use(ctx, func(r *registry.Registry) error {
		for _, name := range unbound {
			k, err := findSSHKey(ctx, r, name)
			if err != nil {
				return fmt.Errorf("--allow-unbound: %w", err)
			}
			cfg.AllowUnbound = append(cfg.AllowUnbound, k.Fingerprint)
		}
		return nil
	})
	if err != nil {
		return err
	}
	server, err := agent.New(cfg)
	if err != nil {
		return err
	}
	clear(cfg.Passphrase)
	socket := l.Addr().String()
	if a.json {
		err = a.ui.object(agentJSON{socket})
	} else { // not cleaned: a shell reads it
		fmt.Fprintf(a.ui.out, "SSH_AUTH_SOCK=%s; export SSH_AUTH_SOCK;\n", wire.Quote(socket))
	}
	if err == nil {
		err = a.ui.flush()
	}
	if err != nil {
		return err
	}
	if err := server.Serve(ctx, l); ctx.Err() == nil {
		return err
	}
	return nil
}

// errNoAgent: nobody answers at the socket, or not as an SSH agent.
var errNoAgent = errors.New("no agent answers")

func noAgent(socket string, cause error) error {
	return withHint(fmt.Errorf("%w at %q: %w", errNoAgent, socket, cause), "Start it: rbee-vault agent")
}
