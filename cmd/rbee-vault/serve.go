package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/agent"
	"github.com/rbee-keeper/rbee-vault/api"
	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newServe(a *app) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the registry over HTTP to programs in other languages",
		Long: `Serve the registry over HTTP on a unix socket, until Ctrl-C or SIGTERM, for programs in
other languages. Only processes of your own user may connect, and of the users that
--allow-uid names. GET /openapi.json describes every route; those of the earlier registry
are among them.

With --sign it also signs logins, for whoever may connect: to hosts whose keys are pinned,
with a row in the audit log, as the agent does. It has no lock; --confirm asks before each.

With --listen it also listens on the loopback interface. There your own processes need no
credentials either; those of other users need the token of --token-file.

The socket is api.sock in $XDG_RUNTIME_DIR/rbee-vault, or the one that systemd passes.
The server goes on through a "rbee-vault rotate".`,
		Example: `  rbee-vault serve &
  curl --unix-socket $XDG_RUNTIME_DIR/rbee-vault/api.sock http://localhost/v2/registry/beehives/list
  rbee-vault serve --listen 127.0.0.1:8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServe(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type serveOptions struct {
	socket    string
	listen    string
	tokenFile string
	uids      []int
	sign      bool
	confirm   bool
}

func (o *serveOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "the socket `PATH` (default $XDG_RUNTIME_DIR/rbee-vault/api.sock)")
	f.StringVar(&o.listen, "listen", "", "also listen on this `ADDRESS` of the loopback interface, such as 127.0.0.1:8080")
	f.StringVar(&o.tokenFile, "token-file", "", "with --listen: let other users in who send the token in the only line of `FILE`, '-' or 'fd:N'; 32 characters or more")
	f.IntSliceVar(&o.uids, "allow-uid", nil, "let this user connect to the socket too, by its number `UID`; needs --socket with a path outside $XDG_RUNTIME_DIR; repeatable")
	f.BoolVar(&o.sign, "sign", false, "sign logins to pinned hosts with the keys of the vault")
	f.BoolVar(&o.confirm, "confirm", false, "with --sign: ask before each signature, by the program $SSH_ASKPASS")
}

type serveJSON struct {
	Socket string  `json:"socket"`
	Listen *string `json:"listen"`
}

func runServe(ctx context.Context, a *app, o serveOptions) error {
	address, err := o.address()
	if err != nil {
		return err
	}
	signing, err := o.signing(a)
	if err != nil {
		return err
	}
	token, err := o.token(ctx, a)
	if err != nil {
		return err
	}
	defer clear(token)
	socket, err := o.open() // before anything is asked
	if err != nil {
		return err
	}
	defer socket.Close()
	listeners := []net.Listener{socket}
	if address != "" {
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			return withHint(err, "Another program may listen there. Choose another port: --listen 127.0.0.1:PORT")
		}
		defer tcp.Close()
		listeners = append(listeners, tcp)
	}
	s, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	err = serveRegistry(ctx, a, s, listeners, signing, api.Config{Token: token, UIDs: o.uids})
	if e := s.Close(); err == nil {
		err = e
	}
	return err
}

// serveRegistry serves until ctx ends, which is no error.
func serveRegistry(ctx context.Context, a *app, s *registry.Session, listeners []net.Listener, signing *agent.Config, cfg api.Config) error {
	if signing != nil {
		signing.Registry = s.Use
		keys, err := agent.New(*signing)
		if err != nil {
			return err
		}
		cfg.Agent = keys
	}
	cfg.Registry, cfg.Explain, cfg.Version, cfg.Logger = s.Use, explainToClient, version, a.ui.logger()
	server, err := api.New(cfg)
	if err != nil {
		return err
	}
	at := serveJSON{Socket: listeners[0].Addr().String()}
	if len(listeners) > 1 {
		address := listeners[1].Addr().String()
		at.Listen = &address
	}
	if a.json {
		err = a.ui.object(at)
	} else {
		a.ui.printf("%s\n", at.Socket)
		if at.Listen != nil {
			a.ui.printf("http://%s\n", *at.Listen)
		}
	}
	if err == nil {
		err = a.ui.flush()
	}
	if err != nil {
		return err
	}
	return server.Serve(ctx, listeners...)
}

// explainToClient gives a client what the command would say.
func explainToClient(err error) api.Problem {
	f := classify(err)
	return api.Problem{Code: f.code, Name: f.name, Message: err.Error(), Hint: f.hint}
}

// signing returns how logins are signed, or nil where they are not.
func (o serveOptions) signing(a *app) (*agent.Config, error) {
	if !o.sign {
		if o.confirm {
			return nil, usagef("--confirm needs --sign")
		}
		return nil, nil
	}
	cfg := &agent.Config{Logger: a.ui.logger()}
	if o.confirm {
		program, err := askpassProgram(os.Getenv)
		if err != nil {
			return nil, err
		}
		cfg.Confirm = askpass(program).confirm
	}
	return cfg, nil
}

// address returns the address of --listen, which is one of the loopback interface.
func (o serveOptions) address() (string, error) {
	if o.listen == "" {
		if o.tokenFile != "" {
			return "", usagef("--token-file needs --listen")
		}
		return "", nil
	}
	text := o.listen
	if port, ok := strings.CutPrefix(text, "localhost:"); ok {
		text = "127.0.0.1:" + port
	}
	address, err := netip.ParseAddrPort(text)
	if err != nil || !address.Addr().IsLoopback() {
		return "", usagef("--listen takes an address of the loopback interface with a port, such as 127.0.0.1:8080")
	}
	return address.String(), nil
}

// token reads the token of --token-file. The caller wipes it.
func (o serveOptions) token(ctx context.Context, a *app) ([]byte, error) {
	if o.tokenFile == "" {
		return nil, nil
	}
	in, err := a.openSecret(ctx, o.tokenFile, "--token-file")
	if err != nil {
		return nil, err
	}
	defer in.Close()
	token, err := readInput(in, 4096)
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	line := bytes.TrimRight(token, "\r\n")
	if len(line) < api.MinToken || bytes.ContainsAny(line, " \t\r\n") {
		clear(token)
		return nil, fmt.Errorf("%w: the token must be one line of %d characters or more, without spaces: openssl rand -hex 32", vault.ErrInvalid, api.MinToken)
	}
	return line, nil
}

// open returns the socket that the service manager passes, or makes one.
func (o serveOptions) open() (net.Listener, error) {
	if o.socket == "" {
		if l, err := unixsocket.Inherited(os.Getenv); l != nil || err != nil {
			return l, err
		}
	}
	path, err := socketPath(o.socket, "api.sock")
	if err != nil {
		return nil, err
	}
	if len(o.uids) == 0 {
		return unixsocket.Listen(path)
	}
	// Nobody else can reach what is in this directory.
	if dir := os.Getenv("XDG_RUNTIME_DIR"); o.socket == "" || dir != "" && strings.HasPrefix(path, filepath.Clean(dir)+"/") {
		return nil, usagef("--allow-uid needs --socket with a path that the other user can reach, such as /run/rbee-vault/api.sock")
	}
	return unixsocket.ListenToAll(path)
}
