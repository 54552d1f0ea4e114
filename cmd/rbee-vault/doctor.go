package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check everything, and report how to fix it",
		Long: `Check file modes and owners, the keyring, the slots file, every unlock method, the age
of the key, every page of the database, the audit log, the backups and leftover files.
Each check prints a line, with the command that fixes the problem. The secrets that you
offer (--identity, --passphrase) are tried on every slot. It also works if the vault
does not open. Exit 18 on damage, 3 on other failures.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), a) },
	}
}

type findingJSON struct {
	Check   vault.Check         `json:"check"`
	Status  vault.FindingStatus `json:"status"`
	Message string              `json:"message"`
	Fix     *string             `json:"fix"`
}

// runDoctor prints every finding. The error is damage if there is any, else errFindings.
func runDoctor(ctx context.Context, a *app) error {
	settings := a.examineConfigFile()
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	provider := examineKeyring(ctx, cfg)
	cfg.Logger = nil // the findings report the same
	opts := vault.ExamineOptions{Use: func(v *vault.Vault) []vault.Finding {
		return append(examineBackups(ctx, a, v), examinePlaintext(v.Path())...)
	}}
	opts.Offers = a.offers
	found, err := vault.Examine(ctx, cfg, opts)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Check == vault.CheckKeyringItem && f.Unused {
			provider.Status, provider.Fix = vault.FindingOK, "" // this vault does not use it
		}
	}
	found = append([]vault.Finding{settings, provider, examineProcess()}, found...)
	var worst error
	for _, f := range found {
		if err := printFinding(a, f); err != nil {
			return err
		}
		if f.Status != vault.FindingFail {
			continue
		}
		if classify(f.Err).code == exitDamaged {
			worst = f.Err
		} else if worst == nil {
			worst = errFindings
		}
	}
	return worst
}

// examinePlaintext names the registries of the earlier program beside the vault.
func examinePlaintext(db string) (found []vault.Finding) {
	for _, file := range plaintextBeside(db) {
		f := vault.Finding{Check: "plaintext", Status: vault.FindingWarn, Message: file + " is a registry in plaintext: remove it once you have a backup"}
		if !strings.HasSuffix(file, ".link") { // shred follows links
			f.Fix = "shred -u " + wire.Quote(file)
		}
		found = append(found, f)
	}
	return found
}

// examineConfigFile reads the file of settings. A bad one is left out for the rest of the command.
func (a *app) examineConfigFile() vault.Finding {
	file, err := a.configFile()
	if err != nil {
		a.file, a.fileErr = &configFile{}, nil
		return vault.Finding{Check: "settings", Status: vault.FindingFail, Message: err.Error(), Fix: failureHint(err), Err: err}
	}
	return vault.Finding{Check: "settings", Status: vault.FindingOK, Message: file.path}
}

func printFinding(a *app, f vault.Finding) error {
	hint := f.Fix
	if f.Status == vault.FindingFail && hint == "" {
		hint = classify(f.Err).hint
	}
	if a.json {
		return a.ui.object(findingJSON{f.Check, f.Status, f.Message, wire.Nullable(hint)})
	}
	style := map[vault.FindingStatus]lipgloss.Style{vault.FindingOK: green, vault.FindingWarn: yellow, vault.FindingFail: red}[f.Status]
	a.ui.printf("%s  %s: %s\n", a.ui.paint(style, fmt.Sprintf("%-4s", f.Status)), f.Check, f.Message)
	if hint != "" {
		a.ui.printf("        %s\n", hint)
	}
	return nil
}

// examineProcess checks that this process cannot leave a core dump.
func examineProcess() vault.Finding {
	if err := hardened(); err != nil {
		return vault.Finding{Check: "core dumps", Status: vault.FindingWarn, Message: err.Error()}
	}
	return vault.Finding{Check: "core dumps", Status: vault.FindingOK, Message: "off, and no other program of this user can attach to this one"}
}

// examineKeyring reports the program behind the keyring. A vault may do without one, so a
// missing keyring is only a warning.
func examineKeyring(ctx context.Context, cfg vault.Config) vault.Finding {
	k, ok := cfg.Keyring.(tracedKeyring)
	if !ok {
		return vault.Finding{Check: "keyring", Status: vault.FindingOK, Message: "none"}
	}
	provider, err := k.Provider(ctx)
	if err != nil {
		return vault.Finding{Check: "keyring", Status: vault.FindingWarn, Message: err.Error(), Fix: classify(err).hint}
	}
	return vault.Finding{Check: "keyring", Status: vault.FindingOK, Message: provider}
}

// examineBackups checks age and copies of the newest backup, as far as this machine can see, and
// when a restore was last tried out. No target is asked.
func examineBackups(ctx context.Context, a *app, v *vault.Vault) []vault.Finding {
	h, err := a.backupHealth(ctx, v, backup.HealthOptions{Offline: true})
	if err != nil {
		return []vault.Finding{{Check: "backup", Status: vault.FindingFail, Message: err.Error(), Err: err}}
	}
	var found []vault.Finding
	for _, p := range h.Problems {
		f := vault.Finding{Check: "backup", Status: vault.FindingWarn, Message: p.Message, Fix: "rbee-vault backup"}
		if p.Kind == backup.ProblemUnproven || p.Kind == backup.ProblemDrill {
			f.Check, f.Fix = "restore drill", "rbee-vault backup drill --identity FILE"
		}
		found = append(found, f)
	}
	ok := func(check vault.Check, message string) {
		if !slices.ContainsFunc(found, func(f vault.Finding) bool { return f.Check == check }) {
			found = append(found, vault.Finding{Check: check, Status: vault.FindingOK, Message: message})
		}
	}
	if h.Last != nil {
		ok("backup", backupText(*h.Last, a.now()))
		ok("restore drill", "the last one that worked was "+provenText(h.Proven, h.At))
	}
	return found
}
