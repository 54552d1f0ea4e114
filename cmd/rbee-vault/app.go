package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/trace"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// app is one run of the command: its flags, its environment and its terminal.
type app struct {
	ui    *ui
	stdin io.Reader

	db              string
	identities      []string
	passphraseFile  string
	byPassphrase    bool
	json            bool
	format          *template.Template // of each object; nil: JSON
	noInput         bool
	yes             bool
	quiet           bool
	debug           bool
	acceptRollback  bool
	allowNetworkFS  bool
	signer          string
	acceptSuccessor bool
	vaultID         string
	wait            time.Duration
	given           func(flag string) bool // reports whether a flag of every command was given

	creating   bool          // the command makes a vault
	offers     []vault.Offer // the identities, once config has read them
	stdinTaken string        // the flag or argument that reads standard input
	passphrase []byte        // the passphrase in passphraseFile, once it was read
	file       *configFile   // the settings of this machine; nil: not read yet, or fileErr
	fileErr    error
	unattended bool // the vault was opened, and no plugin asks when it is opened again
}

// run runs the command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal cancels what the command waits for. After that signals have their
	// default effect, so a second one kills the command at once.
	defer context.AfterFunc(ctx, func() {
		stop()
		endPlugins()
	})()
	a := &app{stdin: stdin}
	a.ui = newUI(ctx, a, stdout, stderr)
	ctx = trace.With(ctx, a.ui.logger())
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(a.ui.out)
	root.SetErr(a.ui.err)
	root.SetContext(ctx)
	err := refuseSecrets(a, args)
	if err == nil {
		var cmd *cobra.Command
		if cmd, err = root.ExecuteContextC(ctx); isUsage(err) && hint(err, "") == "" {
			err = withHint(err, "See: %s --help", cmd.CommandPath())
		}
	}
	if ctx.Err() != nil {
		endPlugins() // again: the AfterFunc above may not have run yet
	}
	if err == nil {
		err = a.ui.misfit
	}
	if ctx.Err() == nil {
		if e := a.ui.page(); err == nil { // also where a part of the command has failed
			err = e
		}
	}
	if err == nil {
		err = a.ui.flush()
	}
	if err == nil {
		return exitOK
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Canceled, err)
	}
	a.ui.flush()
	return a.ui.fail(err)
}

func newRoot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rbee-vault",
		Short: "The encrypted home of a GPU fleet's node registry and SSH credentials",
		Long: `rbee-vault keeps the registry of a fleet's machines, and the keys to them, in an
encrypted database. Its key lives in the OS keyring and in age-encrypted slots.

Begin with "rbee-vault init", then "rbee-vault node add".`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.registerFlags(cmd)
	cmd.SetFlagErrorFunc(flagError)
	addGroup(cmd, "fleet", "The fleet:", newNode(a), newCheck(a), newExec(a), newSSH(a), newUICommand(a), newServe(a), newSetup(a))
	addGroup(cmd, "keys", "SSH keys:", newSSHKey(a), newHostKey(a), newAgent(a))
	addGroup(cmd, "vault", "The vault:", newInit(a), newStatus(a), newDoctor(a), newSlot(a), newRotate(a), newAudit(a), newConfig(a), newDestroy(a))
	addGroup(cmd, "backups", "Backups:", newBackup(a), newRestore(a))
	cmd.AddCommand(newVersion(a), newCompletion(a))
	addTopics(cmd)
	addBuildCommands(cmd)
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.Version = version
	cmd.SetVersionTemplate(versionText() + "\n")
	wrapArgs(cmd)
	a.completeArgs(cmd)
	return cmd
}

// addGroup adds commands under a heading of the help.
func addGroup(cmd *cobra.Command, id, title string, subs ...*cobra.Command) {
	cmd.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, sub := range subs {
		sub.GroupID = id
		cmd.AddCommand(sub)
	}
}

// registerFlags registers the flags that every command takes.
func (a *app) registerFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	a.given = f.Changed
	f.StringVar(&a.db, "db", "", "database `PATH` ($RBEE_VAULT_DB; default ~/.rbee/beehives.db)")
	f.StringArrayVar(&a.identities, "identity", nil, "open with the age or SSH identity in `FILE`, '-' for standard input, 'fd:N' for a descriptor; repeatable ($RBEE_VAULT_IDENTITY_FILE)")
	f.BoolVar(&a.byPassphrase, "passphrase", false, "open with a passphrase slot, even if there is a keyring")
	f.StringVar(&a.passphraseFile, "passphrase-file", "", "read the passphrase of a slot or an identity from the only line of `FILE`, '-' or 'fd:N'")
	f.BoolVar(&a.json, "json", false, "print JSON, for errors too")
	f.Var(&formatFlag{app: a}, "format", "print each object of --json by this `TEMPLATE` of Go: '{{.node_name}}'; with the functions json and join")
	f.BoolVar(&a.noInput, "no-input", false, "never prompt")
	f.BoolVar(&a.yes, "yes", false, "answer yes to every confirmation")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print only data, warnings and errors")
	f.BoolVar(&a.debug, "debug", false, "print each step with how long it took, without values and secrets")
	f.DurationVar(&a.wait, "wait", defaultWait, "how long to wait for a lock that another process holds")
	f.StringVar(&a.signer, "signer", "", "the vault's signer: its `FINGERPRINT` (SHA256:...), or the file of a sheet that names it ($RBEE_VAULT_SIGNER)")
	f.BoolVar(&a.acceptSuccessor, "accept-successor", false, "also accept a certified successor of --signer")
	f.StringVar(&a.vaultID, "vault-id", "", "open the vault only if it has this `ID`")
	f.BoolVar(&a.allowNetworkFS, "allow-network-fs", false, "use a vault on NFS, SMB, 9p or FUSE; only one machine at a time may have it open")
	f.BoolVar(&a.acceptRollback, "accept-rollback", false, "open a database that is older than its last known state")
}

// secretText matches a private key or a part of one: an identity of age or of a plugin,
// PEM, and the beginning of every OpenSSH key.
var secretText = regexp.MustCompile(`(?i)age-secret-key-(pq-)?1\s?[0-9a-z]{4}|age-plugin-[0-9a-z+._-]+-1[0-9a-z]{6}|-----BEGIN [A-Z0-9 ]*PRIVATE KEY|b3BlbnNzaC1rZXktdjE`)

// isSecret reports whether a text holds a private key, where a path or a public key was
// expected. No message may quote such a text.
func isSecret(text string) bool { return secretText.MatchString(text) }

// refuseSecrets refuses arguments that hold a private key, before any message can quote
// them. Other users of the machine may have seen them already.
func refuseSecrets(a *app, args []string) error {
	if !isSecret(strings.Join(args, " ")) { // a shell may have split it
		return nil
	}
	a.json = slices.Contains(args, "--json")
	return withHint(fmt.Errorf("%w: an argument is a private key or an identity itself, and other users of this machine can see arguments", vault.ErrInvalid),
		"Give the path of its file, or '-' for standard input. Stop using that key: others may have read it, and your shell keeps it in its history.")
}

// path returns the database's path.
func (a *app) path() (string, error) {
	if v, err := a.hereSetting(settingDB); err != nil || v.origin != originBuiltIn {
		return v.value, err
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return "", fmt.Errorf("%w: no home directory ($HOME is not an absolute path), so there is no default path", vault.ErrInvalid)
	}
	return vault.DefaultPath(home), nil
}

// lockWait returns how long to wait for a lock.
func (a *app) lockWait() (time.Duration, error) {
	v, err := a.hereSetting(settingWait)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(v.value)
}

// exact reports whether all output is JSON.
func (a *app) exact() bool { return a.json && a.format == nil }

// interactive reports whether the command can prompt.
func (a *app) interactive() bool { return !a.noInput && a.ui.terminal() != nil }

// config returns how to open the vault, with the identities that were offered.
func (a *app) config(ctx context.Context) (vault.Config, error) {
	cfg, err := a.configWithoutIdentities()
	if err != nil {
		return vault.Config{}, err
	}
	// Read once for the whole command: a pipe cannot be read again.
	if a.offers == nil {
		if a.offers, err = a.readOffers(ctx); err != nil {
			return vault.Config{}, err
		}
	}
	for _, o := range a.offers {
		cfg.Identities = append(cfg.Identities, o.Identities...)
	}
	return cfg, nil
}

// configWithoutIdentities is config for commands that need no key.
func (a *app) configWithoutIdentities() (vault.Config, error) {
	path, err := a.path()
	if err == nil {
		err = checkRegular(path)
	}
	if err != nil {
		return vault.Config{}, err
	}
	wait, err := a.lockWait()
	if err == nil {
		_, err = a.hereSetting(settingColor) // newUI had no place for its error
	}
	if err != nil {
		return vault.Config{}, err
	}
	var passphrase identity.PassphraseFunc
	if a.passphraseFile != "" || a.byPassphrase || a.interactive() {
		passphrase = a.askPassphrase
	}
	signer := cmp.Or(a.signer, os.Getenv("RBEE_VAULT_SIGNER"))
	if signer != "" {
		if signer, err = parseSigner(signer); err != nil {
			return vault.Config{}, err
		}
	}
	var confirmSigner func(context.Context, vault.Unvouched) error
	if a.interactive() {
		confirmSigner = a.confirmSigner
	}
	return vault.Config{
		Signer:          signer,
		AcceptSuccessor: a.acceptSuccessor,
		ConfirmSigner:   confirmSigner,
		VaultID:         a.vaultID,
		AllowNetworkFS:  a.allowNetworkFS,
		Path:            path,
		Passphrase:      passphrase,
		ByPassphrase:    a.byPassphrase || a.passphraseFile != "",
		Plugins:         a.plugins(),
		CredentialsDir:  os.Getenv("CREDENTIALS_DIRECTORY"),
		Keyring:         tracedKeyring{keyring.New(keyring.Config{Interactive: a.interactive()})},
		Wait:            max(wait, time.Millisecond),
		AcceptRollback:  a.acceptRollback,
		Via:             "rbee-vault " + version,
		Logger:          a.ui.logger(),
	}, nil
}

// withVault opens the vault, runs fn and closes it.
func (a *app) withVault(ctx context.Context, fn func(*vault.Vault) error) error {
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = fn(v)
	if e := v.Close(); err == nil {
		err = e
	}
	return err
}

// withRegistry is withVault for the registry in the vault.
func (a *app) withRegistry(ctx context.Context, fn func(*registry.Registry) error) error {
	return a.withVault(ctx, func(v *vault.Vault) error { return fn(registry.New(v)) })
}

// now is the wall clock.
func (a *app) now() time.Time { return time.Now().UTC() }
