package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

type nodeAddOptions struct {
	nodeOptions
	keyOptions
	proveOptions
}

func (o *nodeAddOptions) register(cmd *cobra.Command) {
	o.nodeOptions.register(cmd)
	o.keyOptions.register(cmd)
	o.proveOptions.register(cmd)
}

// keyOptions are the flags that give a new node an SSH key of the vault.
type keyOptions struct {
	importKey string
	generate  bool
	use       string
	allowWeak bool
}

func (o *keyOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.importKey, "import-key", "", "seal the SSH private key in `FILE` into the vault, and use it")
	f.BoolVar(&o.generate, "generate-key", false, "generate an SSH key inside the vault, and use it")
	f.StringVar(&o.use, "use-key", "", "use the vault's SSH `KEY`: a fingerprint, its beginning, or a comment")
	f.BoolVar(&o.allowWeak, "allow-weak", false, "accept an RSA key of fewer than 3072 bits")
}

func newNodeAdd(a *app) *cobra.Command {
	var o nodeAddOptions
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a node",
		Long: `Add a node. With --check it is logged in to first, by the key that it will use, and added
only if it is online. With --install it is logged in to by the access that you have now (the
private key that --ssh-key names, your own SSH agent, or with --password a password); then
it is added, and its key of the vault is put into authorized_keys there.

At first contact the fingerprint of its host key is shown, and you are asked whether to pin
it. Without a terminal, --pin names the fingerprint to accept; --accept-new trusts whatever
answers first, which an attacker on the network can be.`,
		Example: `  rbee-vault node add hive-01 --ssh-host hive-01.example.org --ssh-user ops --git-repo https://example.org/rbee.git --install-path /opt/rbee --backend cuda=2
  rbee-vault node add hive-02 --ssh-host 192.0.2.2 --ssh-user ops --git-repo https://example.org/rbee.git --install-path /opt/rbee --generate-key --install`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runNodeAdd(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

// missing returns the flags that a node cannot do without, and that were not given.
func (o nodeAddOptions) missing() (flags []string) {
	for _, f := range []struct{ flag, value string }{{"ssh-host", o.sshHost}, {"ssh-user", o.sshUser}, {"git-repo", o.gitRepo}, {"install-path", o.installPath}} {
		if !o.given(f.flag) && f.value == "" {
			flags = append(flags, "--"+f.flag)
		}
	}
	return flags
}

// ask asks on a terminal for what was not given. What cannot succeed is refused before the first
// question, and an answer that no node can have is asked for again.
func (o *nodeAddOptions) ask(ctx context.Context, a *app, name string) error {
	if len(o.missing()) == 0 || !a.interactive() || a.json {
		return nil
	}
	if err := o.fits(name); err != nil {
		return err
	}
	for _, q := range []struct {
		flag, question, usual string
		value                 *string
	}{
		{"ssh-host", "Host name or address", name, &o.sshHost},
		{"ssh-user", "SSH user", os.Getenv("USER"), &o.sshUser},
		{"git-repo", "URL to install from", "", &o.gitRepo},
		{"install-path", "Path to install at, on the node", "/opt/rbee", &o.installPath},
	} {
		for !o.given(q.flag) && *q.value == "" {
			question := q.question + ": "
			if q.usual != "" {
				question = fmt.Sprintf("%s [%s]: ", q.question, q.usual)
			}
			answer, err := a.ui.ask(ctx, question)
			if err != nil {
				return err
			}
			*q.value = cmp.Or(answer, q.usual)
			if err := o.fits(name); err != nil {
				a.ui.say("%v.", err)
				*q.value = ""
			}
		}
	}
	return nil
}

// fits returns why no node can be as the flags and the answers so far say.
func (o nodeAddOptions) fits(name string) error {
	// Nothing is wrong yet with what is missing.
	o.sshHost, o.sshUser = cmp.Or(o.sshHost, "host"), cmp.Or(o.sshUser, "user")
	o.gitRepo, o.installPath = cmp.Or(o.gitRepo, "https://example.org/rbee.git"), cmp.Or(o.installPath, "/")
	n := registry.Node{Name: name}
	if err := o.apply(&n, true); err != nil {
		return err
	}
	return n.Validate()
}

// check returns a usage error for flags that do not go together.
func (o nodeAddOptions) check() error {
	var keys []string
	for _, flag := range []string{"ssh-key", "import-key", "generate-key", "use-key"} {
		if o.given(flag) && !(flag == "ssh-key" && o.install) { // there it is the operator's own access
			keys = append(keys, "--"+flag)
		}
	}
	if len(keys) > 1 {
		return usagef("a node uses one key: give one of %s", strings.Join(keys, " and "))
	}
	return o.proveOptions.validate(o.importKey != "" || o.generate || o.use != "", o.generate)
}

func runNodeAdd(ctx context.Context, a *app, o nodeAddOptions, name string) error {
	if err := o.check(); err != nil {
		return err
	}
	var fingerprint string
	err := a.withSession(ctx, func(s *registry.Session) (err error) {
		fingerprint, err = o.add(ctx, a, s, name)
		return err
	})
	if errors.Is(err, registry.ErrExists) {
		return withHint(err, "To change that node: rbee-vault node update %s ...", name)
	}
	if err != nil {
		return err
	}
	if o.generate && !o.install {
		a.ui.info("To print its SSH public key for authorized_keys on the node: rbee-vault ssh-key show %s", fingerprint)
	}
	return nil
}

// add adds the node, and returns the fingerprint of its key in the vault. While it asks for what
// is missing, another process may have the vault for itself.
func (o nodeAddOptions) add(ctx context.Context, a *app, s *registry.Session, name string) (fingerprint string, err error) {
	var values map[string]settingValue
	err = s.Use(ctx, func(r *registry.Registry) error {
		if _, err := r.GetNode(ctx, name); err == nil { // before anybody is asked
			return fmt.Errorf("create node %q: %w", name, registry.ErrExists)
		}
		values, err = a.fleetSettings(ctx, r.Vault())
		return err
	})
	if err != nil {
		return "", err
	}
	n, err := o.node(ctx, a, values, name)
	if err != nil {
		return "", err
	}
	choice := registry.KeyChoice{Generate: o.generate}
	if o.importKey != "" {
		key, err := a.readPrivateKey(ctx, o.importKey, registry.PrivateKeyOptions{AllowWeak: o.allowWeak})
		if err != nil {
			return "", err
		}
		defer key.Wipe()
		choice.Import = key
	}
	in := &installer{app: a}
	defer in.closeAgent()
	if o.password {
		if in.password, err = a.ui.askSecret(ctx, "Password on the node: "); err != nil {
			return "", err
		}
		defer clear(in.password)
	}
	err = s.Use(ctx, func(r *registry.Registry) error {
		signer, err := o.signer(ctx, r, name, &choice)
		if err != nil {
			return err
		}
		proof, err := o.prove(ctx, a, r, n, signer, in)
		if err != nil {
			return err
		}
		if fingerprint, err = r.CreateNodeWithKey(ctx, n, choice); err != nil {
			return err
		}
		a.ui.info("added %s", name)
		err = o.finish(ctx, a, r, n, proof, in)
		if a.json { // it is there in any case
			err = errors.Join(err, a.showChanged(ctx, r, "", name))
		}
		return err
	})
	return fingerprint, err
}

// node returns the node that the flags, the settings and the answers describe. It is valid by
// itself.
func (o *nodeAddOptions) node(ctx context.Context, a *app, values map[string]settingValue, name string) (registry.Node, error) {
	n := registry.Node{Name: name}
	if err := o.fill(values); err != nil {
		return n, err
	}
	if err := o.ask(ctx, a, name); err != nil {
		return n, err
	}
	if missing := o.missing(); len(missing) > 0 {
		return n, withHint(usagef("these flags are needed too: %s", strings.Join(missing, ", ")), "To set a default for all new nodes: rbee-vault config set NAME VALUE")
	}
	if err := o.apply(&n, true); err != nil {
		return n, err
	}
	return n, n.Validate()
}

// signer finds the key that the node will use, which choice then names, and returns its
// signer for --check. It is nil without a key, and where nobody logs in with it yet.
func (o nodeAddOptions) signer(ctx context.Context, r *registry.Registry, node string, choice *registry.KeyChoice) (ssh.Signer, error) {
	if o.use != "" {
		k, err := findSSHKey(ctx, r, o.use)
		if err != nil {
			return nil, err
		}
		choice.Use = k.Fingerprint
	}
	switch {
	case !o.proveOptions.check:
		return nil, nil
	case choice.Import != nil:
		return choice.Import.Signer()
	case choice.Use != "":
		return r.KeySigner(ctx, choice.Use, node)
	}
	return nil, nil
}
