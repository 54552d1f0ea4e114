package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/agent"
	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// sshLink is the name by which the command is "rbee-vault ssh", for programs that take the
// path of an ssh.
const sshLink = "rbee-vault-ssh"

func newSSH(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh [FLAG...] [SSH-OPTION...] NODE [COMMAND [ARGUMENT...]]",
		Short: "Run ssh with the keys and pinned host keys of the vault",
		Long: `Run the installed ssh on a node, with its address, user, key and pinned host keys from the
vault. The private key stays in the vault: ssh gets an agent of this process, which
signs for the pinned hosts of the key only. No configuration of yours or of the system is
read. The exit status is ssh's.

Options and arguments are those of ssh, before and behind the node; flags of rbee-vault
come first, in their long form. -F, -M, -O, -S, -P and settings for shared connections are
refused. It needs OpenSSH 8.9 or later.

For programs that take the path of an ssh, make a link named rbee-vault-ssh.`,
		Example: `  rbee-vault ssh hive-01
  rbee-vault ssh -L 8080:localhost:80 hive-01 -N
  rbee-vault --db other.db ssh hive-01 uptime
  rsync -e 'rbee-vault ssh' -a models/ hive-01:models/
  GIT_SSH_COMMAND='rbee-vault ssh' git clone hive-01:repo
  ln -s "$(command -v rbee-vault)" ~/bin/rbee-vault-ssh
  scp -S rbee-vault-ssh file hive-01:         # and sftp -S`,
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		RunE:               func(cmd *cobra.Command, args []string) error { return runSSHCommand(cmd, a, args) },
	}
}

// runSSHCommand takes the flags of rbee-vault from a command line of ssh: ssh has no long
// options.
func runSSHCommand(cmd *cobra.Command, a *app, args []string) error {
	flags := cmd.Root().PersistentFlags()
	n := 0
	for n < len(args) && strings.HasPrefix(args[n], "--") && args[n] != "--" {
		name, _, valued := strings.Cut(args[n][2:], "=")
		if name == "help" {
			return cmd.Help()
		}
		if f := flags.Lookup(name); f != nil && !valued && f.NoOptDefVal == "" {
			n++
		}
		n = min(n+1, len(args))
	}
	if err := flags.Parse(args[:n]); err != nil {
		return usageError(err.Error())
	}
	return runSSH(cmd.Context(), a, args[n:])
}

func runSSH(ctx context.Context, a *app, args []string) error {
	program, err := exec.LookPath("ssh")
	if err != nil {
		return withHint(err, "Install the OpenSSH client.")
	}
	p, err := parseSSHArgs(args)
	switch {
	case err != nil:
		return err
	case p.node == "" && p.about:
		return inPlace(program, args)
	case p.node == "":
		return usagef("which node?")
	}
	s, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := s.Close(); err != nil {
			a.ui.warn("close the vault: %v", err)
		}
	}()
	var hops []hop
	err = s.Use(ctx, func(r *registry.Registry) (err error) {
		hops, err = hopsTo(ctx, r, p.node)
		return err
	})
	if err != nil {
		return err
	}
	return withAgent(ctx, a, s, func(dir, socket string) error {
		config, err := writeSSHFiles(dir, socket, hops)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		return inPlace(program, append([]string{"-F", config}, args...))
	})
}

// withAgent serves an agent of the vault's keys while fn runs, at a socket in a private
// directory, which is removed behind it.
func withAgent(ctx context.Context, a *app, s *registry.Session, fn func(dir, socket string) error) (err error) {
	dir, err := sshDir(os.Getenv)
	if err != nil {
		return err
	}
	defer func() {
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
	}()
	l, err := unixsocket.Listen(filepath.Join(dir, "agent.sock"))
	if err != nil {
		return err
	}
	server, err := agent.New(agent.Config{Registry: s.Use, Logger: a.ui.logger()})
	if err != nil {
		l.Close()
		return err
	}
	// A signal is for the program that runs: the agent serves until that has ended.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(serving, l); serving.Err() == nil {
			a.ui.warn("the agent has ended: %v", err)
		}
	}()
	defer func() {
		stop()
		<-served
	}()
	return fn(dir, l.Addr().String())
}

// inPlace runs a program in place of this one: it has the terminal and gets the signals.
// If it fails, the error is its [exitStatus].
func inPlace(program string, args []string) error {
	// From here on no signal ends this process before the program has ended.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case err := <-ended:
			return statusOf(err)
		}
	}
}

// statusOf returns the status of a program that has ended, as a shell has it.
func statusOf(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitStatus(128 + int(status.Signal()))
	}
	return exitStatus(exit.ExitCode())
}
