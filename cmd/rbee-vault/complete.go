package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// completeTimeout bounds how long a shell waits for the values of the vault.
const completeTimeout = 50 * time.Millisecond

// value lists what can stand for a placeholder of a command line.
type value func(ctx context.Context, v *vault.Vault) ([]string, error)

// values are the placeholders whose values the vault knows.
var values = map[string]value{
	"NAME": nodeNames,
	"NODE": nodeNames,
	"KEY":  keyNames,
	"ID":   slotNames,
	"JUMP": nodeNames,

	"LABEL":     slotLabels,
	"KEY=VALUE": labels,
	"KEY-":      labelRemovals,

	"TARGET":   targetNames,
	"BACKUP":   targetNames, // or a file
	"SEQUENCE": sequences,
	"COPY":     copies,
}

// words are the placeholders with fixed values.
var words = map[string][]string{
	"SHELL":   {"bash", "zsh", "fish"},
	"FORMAT":  {"ssh-config", "json"},
	"SIDE":    {"backup", "live"},
	"ACTION":  {"backup.", "host-key.", "node.", "slot.", "ssh-key.", "vault."},
	"keyring": {keyringName},
}

// conditions are the beginnings of conditions, besides labels.
var conditions = []string{"status=online", "status=offline", "status=error", "status=unknown", "backend=", "cuda>=", "seen<", "seen>"}

// files are the placeholders that stand for a file, which the shell completes.
var files = []string{"FILE", "PATH", "DIRECTORY"}

// meanings are placeholders that stand for something else in a flag.
var meanings = map[string]string{"jump": "JUMP", "target": "TARGET", "label": "", "backend": ""}

// completeArgs has the shell complete the arguments and flags of a command by the names of
// their placeholders. A name for something new is not completed.
func (a *app) completeArgs(cmd *cobra.Command) {
	_, takes, _ := strings.Cut(cmd.Use, " ")
	placeholders := strings.FieldsFunc(takes, func(r rune) bool { return strings.ContainsRune(" []{}|.", r) })
	if cmd.Name() == "add" || cmd.Name() == "add-node" {
		placeholders = slices.DeleteFunc(placeholders, func(p string) bool { return p == "NAME" })
	}
	if parent := cmd.Parent(); parent != nil && parent.Name() == "target" {
		for i := range placeholders {
			placeholders[i] = strings.Replace(placeholders[i], "NAME", "TARGET", 1)
		}
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		var of []string
		for i, p := range placeholders {
			if i >= len(args) || repeats(takes, p) {
				of = append(of, p)
			}
		}
		if len(of) > 1 && !strings.Contains(takes, of[0]+"|") && !repeats(takes, of[0]) {
			of = of[:1] // the argument at this place
		}
		return a.complete(cmd.Context(), of, args, typed)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { a.completeFlag(cmd, f) })
	cmd.PersistentFlags().VisitAll(func(f *pflag.Flag) { a.completeFlag(cmd, f) })
	for _, sub := range cmd.Commands() {
		a.completeArgs(sub)
	}
}

// repeats reports whether a placeholder of a usage line may stand more than once.
func repeats(takes, placeholder string) bool {
	return strings.Contains(takes, placeholder+"...") || strings.Contains(takes, placeholder+"|GLOB...")
}

func (a *app) completeFlag(cmd *cobra.Command, f *pflag.Flag) {
	placeholder, _ := pflag.UnquoteUsage(f)
	if meaning, ok := meanings[f.Name]; ok {
		placeholder = meaning
	}
	if _, known := cmd.GetFlagCompletionFunc(f.Name); known {
		return
	}
	cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.complete(cmd.Context(), []string{placeholder}, nil, typed)
	})
}

// complete lists the values of placeholders that begin as what was typed. It is silent about
// every error: the shell has no place for a message.
func (a *app) complete(ctx context.Context, placeholders, given []string, typed string) ([]string, cobra.ShellCompDirective) {
	var all []string
	for _, p := range placeholders {
		switch {
		case slices.Contains(files, p):
			return nil, cobra.ShellCompDirectiveDefault
		case p == "SETTING":
			all = append(all, settingNames()...)
		case p == "VALUE" && len(given) == 1:
			switch given[0] {
			case settingDB, settingIdentityFile:
				return nil, cobra.ShellCompDirectiveDefault
			case settingColor:
				all = append(all, "auto", "never")
			case registry.SettingBackupTarget:
				all = append(append(all, everyTarget), a.fromVault(ctx, targetNames)...)
			}
		case p == "CONDITIONS":
			all = append(all, a.conditions(ctx, typed)...)
		case words[p] != nil:
			all = append(all, words[p]...)
		case values[p] != nil:
			all = append(all, a.fromVault(ctx, values[p])...)
		}
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if slices.Contains(placeholders, "BACKUP") {
		directive = cobra.ShellCompDirectiveDefault
	}
	if slices.ContainsFunc(placeholders, func(p string) bool { return p == "CONDITIONS" || p == "ACTION" || p == "KEY=VALUE" }) {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(text string) bool {
		return !strings.HasPrefix(text, typed) || slices.Contains(given, text)
	}), directive
}

// conditions completes the last condition of those that were typed.
func (a *app) conditions(ctx context.Context, typed string) []string {
	all := slices.Clone(conditions)
	for _, label := range a.fromVault(ctx, labels) {
		all = append(all, "label."+label)
	}
	before := typed[:strings.LastIndex(typed, ",")+1]
	for i := range all {
		all[i] = before + all[i]
	}
	return all
}

// fromVault asks the vault, if it opens without a question and without a plugin.
func (a *app) fromVault(ctx context.Context, list value) []string {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	a.noInput, a.quiet, a.ui.err = true, true, io.Discard
	sources, err := a.identitySources()
	if err != nil || slices.ContainsFunc(append(sources, a.passphraseFile), isStream) {
		return nil // what is in a stream is not for the completion
	}
	cfg, err := a.config(ctx)
	if err != nil || slices.ContainsFunc(cfg.Identities, identity.UsesPlugin) {
		return nil
	}
	cfg.Wait, cfg.Logger = 50*time.Millisecond, nil
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return nil
	}
	defer v.Close()
	found, err := list(ctx, v)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return found
}

func nodeNames(ctx context.Context, v *vault.Vault) (names []string, err error) {
	s, err := registry.New(v).Snapshot(ctx)
	for n := range s.All() {
		names = append(names, n.Name)
	}
	return names, err
}

// keyNames are the comments of the keys, and the fingerprints of those without one.
func keyNames(ctx context.Context, v *vault.Vault) (names []string, err error) {
	keys, err := registry.New(v).ListSSHKeys(ctx)
	for _, k := range keys {
		if k.Comment == "" || strings.ContainsAny(k.Comment, " \t") {
			names = append(names, k.Fingerprint)
		} else {
			names = append(names, k.Comment)
		}
	}
	return names, err
}

// labels are the labels of the nodes, as KEY=VALUE.
func labels(ctx context.Context, v *vault.Vault) (list []string, err error) {
	s, err := registry.New(v).Snapshot(ctx)
	for n := range s.All() {
		for key, value := range n.Labels {
			list = append(list, key+"="+value)
		}
	}
	return list, err
}

// labelRemovals are the keys of the nodes' labels, as KEY-.
func labelRemovals(ctx context.Context, v *vault.Vault) (list []string, err error) {
	set, err := labels(ctx, v)
	for _, label := range set {
		key, _, _ := strings.Cut(label, "=")
		list = append(list, key+"-")
	}
	return list, err
}

func slotNames(ctx context.Context, v *vault.Vault) (names []string, err error) {
	_, slots, err := metaAndSlots(ctx, v)
	for _, s := range slots {
		names = append(names, s.ID)
	}
	return names, err
}

func slotLabels(ctx context.Context, v *vault.Vault) (names []string, err error) {
	_, slots, err := metaAndSlots(ctx, v)
	for _, s := range slots {
		if s.Label != "" {
			names = append(names, s.Label)
		}
	}
	return names, err
}

func sequences(ctx context.Context, v *vault.Vault) (names []string, err error) {
	records, err := backup.List(ctx, v)
	for _, r := range records {
		names = append(names, strconv.FormatInt(r.Sequence, 10))
	}
	return names, err
}

// copies are the copies of backups that are in targets.
func copies(ctx context.Context, v *vault.Vault) (names []string, err error) {
	records, err := backup.List(ctx, v)
	for _, r := range records {
		for _, c := range r.Copies {
			if c.There() && c.Target != "" {
				names = append(names, c.String())
			}
		}
	}
	return names, err
}

func targetNames(ctx context.Context, v *vault.Vault) (names []string, err error) {
	targets, err := backup.Targets(ctx, v)
	for _, t := range targets {
		names = append(names, t.Name)
	}
	return names, err
}

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion of commands, flags and names for a shell: bash, zsh or fish",
		Long: `Print a script that has the shell complete commands, flags, files and the names of nodes,
keys and slots. Names are read from the vault only if it opens without a question.`,
		Example: `  source <(rbee-vault completion bash)          # in ~/.bashrc
  rbee-vault completion zsh > "${fpath[1]}/_rbee-vault"
  rbee-vault completion fish > ~/.config/fish/completions/rbee-vault.fish`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runCompletion(a, cmd.Root(), args[0]) },
	}
}

func runCompletion(a *app, root *cobra.Command, shell string) error {
	print := map[string]func() error{
		"bash": func() error { return root.GenBashCompletionV2(a.ui.out, true) },
		"zsh":  func() error { return root.GenZshCompletion(a.ui.out) },
		"fish": func() error { return root.GenFishCompletion(a.ui.out, true) },
	}
	if print[shell] == nil {
		shells := slices.Sorted(maps.Keys(print))
		return usagef("there is no completion for %q, but for %s", filepath.Base(shell), strings.Join(shells, ", "))
	}
	return print[shell]()
}
