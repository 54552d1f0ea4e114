package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// setting is a default of the command. The vault keeps those that are about the fleet, and the
// file of this machine may have any.
type setting struct {
	name    string
	about   string
	builtIn string                    // "": none
	here    bool                      // it is about this machine: the vault does not keep it
	path    bool                      // of a file on this machine
	rule    func(value string) string // of one that the vault does not keep: the rule that it breaks, or ""
}

// The names of the settings that the vault does not keep.
const (
	settingColor        = "color"
	settingDB           = "db"
	settingIdentityFile = "identity-file"
	settingWait         = "wait"
)

// everyTarget is the value of [registry.SettingBackupTarget] for all targets of the vault.
const everyTarget = "all"

const defaultWait = 10 * time.Second

var settings = []setting{
	{name: registry.SettingBackupTarget, about: "where backups go: target names, with commas between", builtIn: everyTarget},
	{name: registry.SettingDrillAge, about: "how old the last restore that was tried out may be", builtIn: "90d"},
	{name: registry.SettingGitBranch, about: "of a new node: the branch to install", builtIn: "main"},
	{name: registry.SettingGitRepo, about: "of a new node: the URL to install from"},
	{name: registry.SettingInstallPath, about: "of a new node: the path to install at"},
	{name: registry.SettingSSHPort, about: "of a new node", builtIn: fmt.Sprint(registry.DefaultSSHPort)},
	{name: registry.SettingSSHUser, about: "of a new node"},
	{name: settingColor, about: "on a terminal: auto or never", builtIn: "auto", here: true, rule: ruleColor},
	{name: settingDB, about: "the database (--db)", builtIn: "~/.rbee/beehives.db", here: true, path: true, rule: ruleFile},
	{name: settingIdentityFile, about: "what opens the vault (--identity)", here: true, path: true, rule: ruleFile},
	{name: settingWait, about: "for a lock of another process (--wait)", builtIn: defaultWait.String(), here: true, rule: ruleWait},
}

func settingNames() (names []string) {
	for _, s := range settings {
		names = append(names, s.name)
	}
	return names
}

// settingsText lists the settings for the help. here: those of this machine.
func settingsText(here bool) string {
	var b strings.Builder
	for _, s := range settings {
		if s.here != here {
			continue
		}
		fmt.Fprintf(&b, "  %-14s %s", s.name, s.about)
		if s.builtIn != "" {
			fmt.Fprintf(&b, "; built in: %s", s.builtIn)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func findSetting(name string) (setting, error) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{}, withSuggestion(fmt.Errorf("the setting %q: %w", name, registry.ErrNotFound), name, settingNames(), "All of them: rbee-vault config list")
	}
	return settings[i], nil
}

// check checks a value that somebody sets. The error is a [*registry.FieldError].
func (s setting) check(value string) error {
	if !s.here {
		return registry.Setting{Name: s.name, Value: value}.Validate()
	}
	if broken := s.rule(value); broken != "" {
		return &registry.FieldError{Field: s.name, Rule: broken}
	}
	return nil
}

func ruleColor(value string) string {
	if value != "auto" && value != "never" {
		return "must be auto or never"
	}
	return ""
}

func ruleFile(value string) string {
	if !filepath.IsAbs(value) && !strings.HasPrefix(value, "~/") || strings.ContainsFunc(value, wire.Control) {
		return "must be an absolute path, or begin with ~/"
	}
	return ""
}

func ruleWait(value string) string {
	if d, err := time.ParseDuration(value); err != nil || d < 0 {
		return "must be a time such as 10s or 2m"
	}
	return ""
}

// variable is the setting's variable of the environment.
func (s setting) variable() string {
	return "RBEE_VAULT_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// origin is where the value of a setting comes from. The names are promises.
type origin string

// The origins, the first ones first.
const (
	originFlag        origin = "flag"
	originEnvironment origin = "environment"
	originFile        origin = "file"
	originVault       origin = "vault"
	originBuiltIn     origin = "built-in"
	originUnset       origin = "unset"
)

// settingValue is a setting's value, and where it comes from.
type settingValue struct {
	name   string
	value  string
	origin origin
	where  string // the flag, the variable or the file
}

// lookUp returns the value of a setting: that of the flag, else of the environment, else of the
// file of this machine, else of the vault, else the built-in one. inVault are the vault's.
func (a *app) lookUp(s setting, inVault map[string]string) (settingValue, error) {
	if value, flag := a.settingFlag(s.name); value != "" {
		return settingValue{s.name, value, originFlag, flag}, nil
	}
	if s.name == settingColor && os.Getenv("NO_COLOR") != "" {
		return settingValue{s.name, "never", originEnvironment, "$NO_COLOR"}, nil
	}
	if value := os.Getenv(s.variable()); value != "" {
		if err := s.check(value); err != nil && !s.path { // a path may be relative there
			return settingValue{}, fmt.Errorf("$%s: %w", s.variable(), err)
		}
		return settingValue{s.name, value, originEnvironment, "$" + s.variable()}, nil
	}
	file, err := a.configFile()
	if err != nil {
		return settingValue{}, err
	}
	if value := file.values[s.name]; value != "" {
		return settingValue{s.name, s.expand(value), originFile, file.path}, nil
	}
	if value := inVault[s.name]; value != "" {
		return settingValue{s.name, value, originVault, ""}, nil
	}
	if s.builtIn != "" {
		return settingValue{s.name, s.expand(s.builtIn), originBuiltIn, ""}, nil
	}
	return settingValue{name: s.name, origin: originUnset}, nil
}

// expand returns a path without the ~ that it may begin with.
func (s setting) expand(value string) string {
	if !s.path {
		return value
	}
	home, _ := os.UserHomeDir()
	return registry.ExpandPath(home, value)
}

// settingFlag returns the value of the flag of every command that a setting is the default of.
func (a *app) settingFlag(name string) (value, flag string) {
	switch name {
	case settingDB:
		return a.db, "--db"
	case settingIdentityFile:
		return strings.Join(a.identities, ", "), "--identity"
	case settingWait:
		if a.given != nil && a.given("wait") {
			return a.wait.String(), "--wait"
		}
	}
	return "", ""
}

// hereSetting is lookUp for a setting of this machine.
func (a *app) hereSetting(name string) (settingValue, error) {
	s, err := findSetting(name)
	if err != nil {
		return settingValue{}, err
	}
	return a.lookUp(s, nil)
}

// fleetSettings returns the values of the settings about the fleet, by name. v is open.
func (a *app) fleetSettings(ctx context.Context, v *vault.Vault) (map[string]settingValue, error) {
	inVault, err := registry.New(v).Settings(ctx)
	if err != nil {
		return nil, err
	}
	values := map[string]settingValue{}
	for _, s := range settings {
		if s.here {
			continue
		}
		if values[s.name], err = a.lookUp(s, inVault); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// targetsOf returns the names of the targets that backups go to; nil: every one.
func targetsOf(values map[string]settingValue) []string {
	value := values[registry.SettingBackupTarget].value
	if value == everyTarget {
		return nil
	}
	return splitTargets(value)
}

// splitTargets returns the names in a value of [registry.SettingBackupTarget].
func splitTargets(value string) (names []string) {
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// allSettings returns every setting, by name, with those of the vault that this version does
// not know.
func (a *app) allSettings(inVault map[string]string) ([]settingValue, error) {
	var all []settingValue
	for _, s := range settings {
		value, err := a.lookUp(s, inVault)
		if err != nil {
			return nil, err
		}
		all = append(all, value)
	}
	for name, value := range inVault {
		if !slices.Contains(settingNames(), name) {
			all = append(all, settingValue{name, value, originVault, ""})
		}
	}
	slices.SortFunc(all, func(a, b settingValue) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}
