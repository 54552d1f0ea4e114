package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type importOptions struct {
	sshConfig    string
	gitRepo      string
	gitBranch    string
	installPath  string
	withKeys     bool
	allowWeak    bool
	allowExec    bool
	replace      bool
	skipExisting bool
	withHostKeys bool
	knownHosts   string
	dryRun       bool
}

func (o *importOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.sshConfig, "ssh-config", "", "import the aliases of the ssh_config `FILE`")
	f.StringVar(&o.gitRepo, "git-repo", "", "`URL` to install from, for --ssh-config (default: the setting git-repo)")
	f.StringVar(&o.gitBranch, "git-branch", "", "`BRANCH` to install, for --ssh-config (default: the setting git-branch, main)")
	f.StringVar(&o.installPath, "install-path", "", "`PATH` to install at, for --ssh-config (default: the setting install-path)")
	f.BoolVar(&o.withKeys, "with-keys", false, "seal the private keys at the nodes' key paths into the vault")
	f.BoolVar(&o.allowWeak, "allow-weak", false, "accept RSA keys of fewer than 3072 bits")
	f.BoolVar(&o.allowExec, "allow-exec", false, "let ssh run the programs in Match exec lines of the ssh_config")
	f.BoolVar(&o.replace, "replace", false, "replace existing nodes that have the same name")
	f.BoolVar(&o.skipExisting, "skip-existing", false, "leave existing nodes that have the same name as they are")
	f.BoolVar(&o.withHostKeys, "with-host-keys", false, "pin the host keys that your known_hosts has for the nodes")
	f.StringVar(&o.knownHosts, "known-hosts", "", "known_hosts `FILE` for --with-host-keys (default: of the ssh_config, or ~/.ssh/known_hosts)")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be imported, and write nothing")
}

func newNodeImport(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE | import --ssh-config FILE",
		Short: "Import nodes from a plaintext registry, JSON lines or an ssh_config",
		Long: `Import nodes in one transaction. FILE is one of these:

  a plaintext beehives.db, with ten or twelve columns; it is only read. On a terminal the
    import offers to put ~/.rbee/beehives.db aside behind it, with the vault in its place
  JSON lines, as "node list --json" prints them; '-' is standard input

--ssh-config imports the aliases of an ssh_config file, with the values that "ssh -G"
prints for each. The fields that SSH does not know come from --git-repo, --git-branch
and --install-path. The hosts that they jump through become nodes too. Patterns and Match
lines are skipped, with a warning. In key paths, ~ and the tokens %h %n %p %r %d %% are expanded.
A ProxyJump through several hosts, ProxyCommand, HostKeyAlias, certificates and key paths
with other tokens are not imported, with a warning. "ssh -G" runs the programs in Match
exec lines: a file with such a line is refused, even with --dry-run, unless you give
--allow-exec.

With --with-keys, each readable private key that an ssh_key_path names is sealed into
the vault, and the node uses it.

With --with-host-keys, the host keys that your known_hosts file has for a node's address
and port are pinned. Patterns, revoked keys, certificate authorities and several keys of
one type are skipped, with a warning. If another key of the type is pinned, nothing is
imported (exit 18).

Rows that are not valid nodes are skipped and reported (exit 3). If a node with the same
name exists, nothing is imported (exit 15), unless you give --replace or --skip-existing.`,
		Example: `  rbee-vault node import ~/.rbee/beehives.db --with-keys
  rbee-vault node import --ssh-config ~/.ssh/config --git-repo https://example.org/rbee.git --install-path /opt/rbee`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runNodeImport(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

type problemJSON struct {
	Row    string `json:"row"`
	Reason string `json:"reason"`
}

// moreJSON counts the problems that are not listed.
type moreJSON struct {
	Skipped  int `json:"skipped"`
	Warnings int `json:"warnings"`
}

type importJSON struct {
	DryRun    bool          `json:"dry_run"`
	Added     []string      `json:"added"`
	Replaced  []string      `json:"replaced"`
	Unchanged []string      `json:"unchanged"`
	Existing  []string      `json:"existing"`
	Skipped   []problemJSON `json:"skipped"`
	Warnings  []problemJSON `json:"warnings"`
	More      moreJSON      `json:"more"`
	Keys      []string      `json:"keys"`
	HostKeys  []string      `json:"host_keys"`
}

// readImport reads the nodes, from source. legacy is true for a plaintext registry.
func (a *app) readImport(ctx context.Context, o importOptions, file, home string) (set registry.ImportSet, source string, legacy bool, err error) {
	if o.sshConfig != "" {
		set, err = readSSHConfig(ctx, o, home)
		return set, o.sshConfig, false, err
	}
	in, err := a.openArgument(ctx, file, "the nodes")
	if err != nil {
		return set, file, false, err
	}
	defer in.Close()
	r := bufio.NewReader(in)
	if file == "-" || !in.regular || isNDJSON(r, file) {
		set, err = registry.ReadNDJSON(r)
		return set, file, false, err
	}
	set, err = registry.ReadLegacy(ctx, file, home)
	return set, file, true, err
}

// isNDJSON reports whether a file has JSON lines or is empty. It returns false for a
// database, which may be empty too: its rows can be in the write-ahead log.
func isNDJSON(r *bufio.Reader, file string) bool {
	head, _ := r.Peek(1024)
	text := bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")))
	if len(text) > 0 {
		return text[0] == '{'
	}
	_, err := os.Stat(file + "-wal")
	return len(head) > 0 || errors.Is(err, fs.ErrNotExist)
}

// readSSHConfig asks ssh for the values of each alias, so that every rule of ssh_config
// is followed.
func readSSHConfig(ctx context.Context, o importOptions, home string) (registry.ImportSet, error) {
	file, err := filepath.Abs(o.sshConfig)
	if err != nil {
		return registry.ImportSet{}, err
	}
	aliases, err := registry.ScanSSHConfig(file, home)
	if err != nil {
		return registry.ImportSet{}, err
	}
	if len(aliases.Runs) > 0 && !o.allowExec {
		run := aliases.Runs[0]
		return registry.ImportSet{}, withHint(fmt.Errorf("%w: %s: %s", vault.ErrInvalid, run.Row, run.Reason),
			"Nothing was run. If you trust every included file, and the programs in them: --allow-exec")
	}
	set := registry.ImportSet{TwelveFields: true, Warnings: aliases.Skipped, More: registry.More{Warnings: aliases.More}} // skipped patterns are only warnings
	// The hosts that the aliases jump through become nodes too; ssh knows their values.
	names := slices.Clone(aliases.Names)
	for i := 0; i < len(names); i++ {
		if ctx.Err() != nil {
			return registry.ImportSet{}, ctx.Err()
		}
		name := names[i]
		n, lost, err := sshAlias(ctx, file, name, home)
		if err != nil {
			set.Skipped = append(set.Skipped, registry.Problem{Row: name, Reason: err.Error()})
			continue
		}
		for _, reason := range lost {
			set.Warnings = append(set.Warnings, registry.Problem{Row: name, Reason: reason})
		}
		set.Nodes = append(set.Nodes, n)
		if n.ProxyJump != "" && !slices.Contains(names, n.ProxyJump) {
			names = append(names, n.ProxyJump)
		}
	}
	return set, nil
}

// sshAlias asks ssh for the values of an alias. The node has no more than SSH knows. lost says
// what could not be imported.
func sshAlias(ctx context.Context, file, alias, home string) (n registry.Node, lost []string, err error) {
	out, err := sshValues(ctx, file, alias)
	if err != nil {
		return registry.Node{}, nil, err
	}
	return registry.ParseSSHValues(bytes.NewReader(out), registry.Node{Name: alias}, home)
}

// sshValues returns the values that ssh has for an alias.
func sshValues(ctx context.Context, file, alias string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "ssh", "-G", "-F", file, "--", alias)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // a program that ssh started may hold the pipes
	out, err := cmd.Output()
	if err != nil && stderr.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// readKeys reads the private keys at the nodes' key paths. A key that cannot be sealed is
// a warning, and its node is imported without it.
func readKeys(ctx context.Context, set *registry.ImportSet, allowWeak bool) {
	set.Keys = map[string]*registry.PrivateKey{}
	rows := countRows(set.Nodes)
	for _, n := range set.Nodes {
		if n.SSHKeyPath == "" {
			continue
		}
		if rows[n.Name] > 1 {
			set.Warnings = append(set.Warnings, registry.Problem{Row: n.Name, Reason: "its SSH key stays a path: the file has the node twice"})
			continue
		}
		k, err := readKeyFile(ctx, n.SSHKeyPath, allowWeak)
		if errors.Is(err, vault.ErrNoUnlockMethod) {
			err = fmt.Errorf("it has a passphrase, which an import does not ask for. After the import: rbee-vault ssh-key add %s --node %s", wire.Quote(n.SSHKeyPath), n.Name)
		}
		if err != nil {
			set.Warnings = append(set.Warnings, registry.Problem{Row: n.Name, Reason: fmt.Sprintf("its SSH key stays a path: %v", err)})
			continue
		}
		set.Keys[n.Name] = k
	}
}

// countRows returns how many nodes have each name.
func countRows(nodes []registry.Node) map[string]int {
	rows := map[string]int{}
	for _, n := range nodes {
		rows[n.Name]++
	}
	return rows
}

func readKeyFile(ctx context.Context, path string, allowWeak bool) (*registry.PrivateKey, error) {
	if err := checkRegular(path); err != nil {
		return nil, err
	}
	f, err := openInput(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readInput(f, registry.MaxPEM)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	// Without a passphrase function: an import has many keys, and does not prompt.
	return registry.ParsePrivateKey(ctx, data, registry.PrivateKeyOptions{Name: path, AllowWeak: allowWeak})
}

// check refuses options that do not go together.
func (o *importOptions) check(args []string) error {
	if (len(args) == 1) == (o.sshConfig != "") {
		return usagef("give either a file or --ssh-config")
	}
	if o.replace && o.skipExisting {
		return usagef("give either --replace or --skip-existing")
	}
	if o.knownHosts != "" && !o.withHostKeys {
		return usagef("--known-hosts needs --with-host-keys")
	}
	return nil
}

// importGC is Go's GC percentage during an import, which holds all nodes: 100,000 of them need
// 100 MB so, and 120 MB by the default.
const importGC = 35

func runNodeImport(ctx context.Context, a *app, o importOptions, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(importGC))
	home, _ := os.UserHomeDir()
	set, source, legacy, err := a.readImport(ctx, o, strings.Join(args, ""), home)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if o.withHostKeys {
		if err := readHostKeys(ctx, o, &set, home); err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	if o.withKeys {
		readKeys(ctx, &set, o.allowWeak)
		defer func() {
			for _, k := range set.Keys {
				k.Wipe()
			}
		}()
	}
	return importNodes(ctx, a, o, set, source, legacy)
}

// importNodes imports nodes that were read from source. legacy: it is a plaintext registry.
func importNodes(ctx context.Context, a *app, o importOptions, set registry.ImportSet, source string, legacy bool) error {
	var report registry.ImportReport
	var db string
	err := a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		db = r.Vault().Path()
		if o.sshConfig != "" {
			if err := o.fill(ctx, a, r, set.Nodes); err != nil {
				return err
			}
		}
		report, err = r.Import(ctx, set, registry.ImportOptions{Source: source, Replace: o.replace, SkipExisting: o.skipExisting, DryRun: o.dryRun})
		return err
	})
	if errors.Is(err, registry.ErrExists) {
		return withHint(err, "Nothing was imported. To replace these nodes with those of the file: --replace. To import only the others: --skip-existing")
	}
	if errors.Is(err, registry.ErrHostKeyChanged) {
		return withHint(err, "Nothing was imported. If you know why the key changed, see: rbee-vault host-key trust --help")
	}
	if err == nil {
		err = showImport(a, report, o.dryRun)
	}
	if err != nil {
		return err
	}
	if n := len(report.Skipped) + report.More.Skipped; n > 0 {
		err = fmt.Errorf("%w: %d of the file's rows were skipped", errPartial, n)
	}
	if !legacy || o.dryRun {
		return err
	}
	if err == nil && len(report.Existing) == 0 { // the vault has all that the file has
		source, err = a.offerAside(ctx, set, source, db)
	}
	if len(report.Added)+len(report.Replaced)+len(report.Unchanged)+len(report.Existing) > 0 {
		a.sayPlaintext(source)
	}
	return err
}

// fill gives the nodes of an ssh_config what SSH does not know, by the flags and the settings.
func (o *importOptions) fill(ctx context.Context, a *app, r *registry.Registry, nodes []registry.Node) error {
	values, err := a.fleetSettings(ctx, r.Vault())
	if err != nil {
		return err
	}
	repo := cmp.Or(o.gitRepo, values[registry.SettingGitRepo].value)
	branch := cmp.Or(o.gitBranch, values[registry.SettingGitBranch].value)
	path := cmp.Or(o.installPath, values[registry.SettingInstallPath].value)
	if repo == "" || path == "" {
		return withHint(usagef("--ssh-config needs --git-repo and --install-path"), "To set a default for all new nodes: rbee-vault config set NAME VALUE")
	}
	for i := range nodes {
		nodes[i].GitRepoURL, nodes[i].GitBranch, nodes[i].InstallPath = repo, branch, path
	}
	return nil
}

// newImportJSON returns the report with lists that are never null.
func newImportJSON(report registry.ImportReport, dryRun bool) importJSON {
	problems := func(from []registry.Problem) []problemJSON {
		list := []problemJSON{}
		for _, p := range from {
			list = append(list, problemJSON(p))
		}
		return list
	}
	return importJSON{
		DryRun:    dryRun,
		Added:     notNil(report.Added),
		Replaced:  notNil(report.Replaced),
		Unchanged: notNil(report.Unchanged),
		Existing:  notNil(report.Existing),
		Skipped:   problems(report.Skipped),
		Warnings:  problems(report.Warnings),
		More:      moreJSON(report.More),
		Keys:      notNil(report.Keys),
		HostKeys:  notNil(report.HostKeys),
	}
}

// showImport prints the warnings and what was done with each node.
func showImport(a *app, report registry.ImportReport, dryRun bool) error {
	if a.json {
		return a.ui.object(newImportJSON(report, dryRun))
	}
	for _, p := range report.Warnings {
		a.ui.warn("%s: %s", p.Row, p.Reason)
	}
	if n := report.More.Warnings; n > 0 {
		a.ui.warn("and %d more warnings", n)
	}
	for _, p := range report.Skipped {
		a.ui.warn("skipped %s: %s", p.Row, p.Reason)
	}
	if n := report.More.Skipped; n > 0 {
		a.ui.warn("skipped %d more", n)
	}
	var counts []string
	for _, done := range []struct {
		verb  string
		names []string
	}{{"added", report.Added}, {"replaced", report.Replaced}, {"unchanged", report.Unchanged}, {"existing", report.Existing}, {"key", report.Keys}, {"host-key", report.HostKeys}} {
		for _, name := range done.names {
			a.ui.printf("%s\t%s\n", done.verb, name)
		}
		if len(done.names) > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", len(done.names), done.verb))
		}
	}
	if a.ui.pretty && len(report.Added)+len(report.Replaced)+len(report.Unchanged)+len(report.Existing) > few {
		a.ui.info("%s", strings.Join(counts, ", ")) // the lines have scrolled away
	}
	if dryRun {
		a.ui.info("Nothing was written: this was a dry run.")
	}
	return nil
}
