package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

type keyInstallOptions struct {
	selectOptions
	password bool
}

func (o *keyInstallOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().BoolVar(&o.password, "password", false, "log in with a password, which is asked for once")
}

func newSSHKeyInstall(a *app) *cobra.Command {
	var o keyInstallOptions
	cmd := &cobra.Command{
		Use:   "install NODE|GLOB...",
		Short: "Let the vault's key into a node: add it to authorized_keys there",
		Long: `Add the public key that a node uses in the vault to the authorized_keys of the node's user,
and prove with a login that it works. To add it, the command logs in with the access that
you have now: the private key that the node's path names, your own SSH agent, or with
--password a password. The host key must be pinned. A key that is there already is left as
it is, with its options.

If the key cannot be added (a forced command, a read-only file, another file that the
server reads), its line is printed for you. If a node could not be done, the exit code is 3.`,
		Example: `  rbee-vault node add hive-03 --generate-key ... && rbee-vault ssh-key install hive-03 --password`,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return runSSHKeyInstall(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyInstall(ctx context.Context, a *app, o keyInstallOptions, args []string) error {
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	in := installer{app: a}
	if o.password { // before anything waits for the answer
		if in.password, err = a.ui.askSecret(ctx, "Password on the nodes: "); err != nil {
			return err
		}
		defer clear(in.password)
	}
	defer in.closeAgent()
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		nodes, err := selection.nodes(ctx, a, r)
		if err != nil {
			return err
		}
		in.registry, in.dialer = r, &hive.Dialer{Registry: r}
		failed := 0
		for _, n := range nodes {
			result, err := in.install(ctx, n)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := in.report(n, result, err); err != nil {
				return err
			}
			if err != nil {
				failed++
			}
		}
		if failed > 0 {
			return fmt.Errorf("%w: %d of %d nodes do not take the vault's key", errPartial, failed, len(nodes))
		}
		return nil
	})
}

// installer puts keys of the vault on nodes, one after the other.
type installer struct {
	app      *app
	registry *registry.Registry
	dialer   *hive.Dialer
	password []byte   // of the operator on the nodes, or nil
	agent    net.Conn // to the operator's own agent, once it is needed
	keys     agent.Agent
}

// installation is what was done for a node.
type installation string

const (
	keyAccepted  installation = "accepted"  // the login worked already
	keyInstalled installation = "installed" // and a login proves it
)

// install has a node accept its key of the vault.
func (in *installer) install(ctx context.Context, n registry.Node) (installation, error) {
	key, err := in.registry.NodeSSHKey(ctx, n.Name)
	if errors.Is(err, registry.ErrNotFound) {
		return "", withHint(err, "Give it one: rbee-vault ssh-key generate --node %s", n.Name)
	} else if err != nil {
		return "", err
	}
	if err = in.login(ctx, n); err == nil {
		return keyAccepted, nil
	}
	if !errors.Is(err, hive.ErrPermission) {
		return "", in.explain(ctx, n, err)
	}
	conn, err := in.dialer.DialBy(ctx, n.Name, in.access)
	if err != nil {
		return "", in.explain(ctx, n, err)
	}
	defer conn.Close()
	_, notAdded := conn.Authorize(ctx, key.PublicKey+" "+commentOf(key))
	// The login alone decides: the server may read another file.
	if err := in.login(ctx, n); err != nil {
		return "", withHint(errors.Join(notAdded, err), "Add this line to the authorized_keys of %s on %s: %s", n.SSHUser, n.Name, key.PublicKey)
	}
	return keyInstalled, nil
}

// explain adds the next step to the error of a login to n, if it has none.
func (in *installer) explain(ctx context.Context, n registry.Node, err error) error {
	at, ok := errors.AsType[*hive.Error](err)
	outcome, known := hive.OutcomeOf(err)
	if !ok || !known || hint(err, "") != "" {
		return err
	}
	if outcome == hive.PermissionDeny && at.Node == n.Name {
		return withHint(err, "%s", accessHint)
	}
	r := checked{Result: hive.Result{Outcome: outcome, At: at.Node}}
	if bad, ok := errors.AsType[*hive.HostKeyError](err); ok {
		r.Key = bad.Key
		pinned, gone := in.registry.ListHostKeys(ctx, at.Node)
		if gone != nil {
			return err
		}
		r.pinned = pinned
	}
	return withHint(err, "%s", r.hint())
}

// commentOf says in authorized_keys where a key comes from.
func commentOf(k registry.SSHKey) string {
	if k.Comment != "" {
		return k.Comment
	}
	return "rbee-vault"
}

// login proves that the node accepts its key of the vault.
func (in *installer) login(ctx context.Context, n registry.Node) error {
	conn, result, err := in.dialer.DialProbe(ctx, n.Name)
	if err != nil {
		return err
	}
	conn.Close()
	return result.Err
}

// access is the access that the operator has without the vault: the node's key file and the
// agent, or the password.
func (in *installer) access(ctx context.Context, n registry.Node) ([]ssh.AuthMethod, error) {
	if in.password != nil {
		return in.byPassword(), nil
	}
	var signers []ssh.Signer
	var causes []error
	if n.SSHKeyPath != "" {
		signer, err := hive.ReadKeyFile(n.SSHKeyPath)
		if err != nil {
			causes = append(causes, err)
		} else {
			signers = append(signers, signer)
		}
	}
	if own, err := in.agentSigners(); err != nil {
		causes = append(causes, err)
	} else {
		signers = append(signers, own...)
	}
	if len(signers) == 0 {
		err := fmt.Errorf("%w of yours opens the node: %w", hive.ErrNoKey, errors.Join(causes...))
		return nil, withHint(err, "Load your key into your agent (ssh-add), or use --password.")
	}
	return []ssh.AuthMethod{ssh.PublicKeys(signers...)}, nil
}

// agentSigners returns the keys in the operator's own agent. It signs when a login needs it,
// so the connection stays open.
func (in *installer) agentSigners() ([]ssh.Signer, error) {
	if in.agent == nil {
		socket := os.Getenv("SSH_AUTH_SOCK")
		if socket == "" {
			return nil, errors.New("there is no SSH agent ($SSH_AUTH_SOCK is not set)")
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil, fmt.Errorf("connect to the SSH agent: %w", err)
		}
		// One client for all nodes: each one reads from the connection by itself, so that a
		// second one would get the first one's answers.
		in.agent, in.keys = conn, agent.NewClient(conn)
	}
	signers, err := in.keys.Signers()
	if err != nil {
		return nil, fmt.Errorf("list the keys of the SSH agent: %w", err)
	}
	return signers, nil
}

func (in *installer) closeAgent() {
	if in.agent != nil {
		in.agent.Close()
	}
}

// byPassword logs in with the password, in either way in which a server may want it.
func (in *installer) byPassword() []ssh.AuthMethod {
	return []ssh.AuthMethod{
		ssh.Password(string(in.password)),
		ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range questions {
				if echos[i] { // not a password
					return nil, errors.New("the server asks for more than a password")
				}
				answers[i] = string(in.password)
			}
			return answers, nil
		}),
	}
}

type installationJSON struct {
	Node   string  `json:"node"`
	Result *string `json:"result"`
	Error  *string `json:"error"`
	Hint   *string `json:"hint"`
}

// report prints what was done for a node.
func (in *installer) report(n registry.Node, done installation, err error) error {
	if in.app.json {
		j := installationJSON{Node: n.Name}
		if err != nil {
			text, next := err.Error(), hint(err, "")
			j.Error, j.Hint = &text, wire.Nullable(next)
		} else {
			text := string(done)
			j.Result = &text
		}
		return in.app.ui.object(j)
	}
	switch {
	case err != nil:
		in.app.ui.warn("%s: %s", n.Name, err)
		if next := hint(err, ""); next != "" {
			in.app.ui.info("  %s", next)
		}
	case done == keyAccepted:
		in.app.ui.info("%s accepts its key already.", n.Name)
	default:
		in.app.ui.info("%s accepts its key now.", n.Name)
	}
	return nil
}
