package registry

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Setting is a default that travels with the vault.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// The names of settings. They are promises.
const (
	SettingGitRepo      = "git-repo"      // of a new node
	SettingGitBranch    = "git-branch"    // of a new node
	SettingInstallPath  = "install-path"  // of a new node
	SettingSSHUser      = "ssh-user"      // of a new node
	SettingSSHPort      = "ssh-port"      // of a new node
	SettingBackupTarget = "backup-target" // where backups go: "all", or names with commas between
	SettingDrillAge     = "drill-age"     // how old the last proven restore may be; see [ParseAge]
)

// settingRules has the rule that a value breaks, or "", for each name.
var settingRules = map[string]func(value string) string{
	SettingGitRepo:      ruleGitURL,
	SettingGitBranch:    ruleBranch,
	SettingInstallPath:  func(value string) string { return rulePath(value, true) },
	SettingSSHUser:      ruleUser,
	SettingSSHPort:      rulePortText,
	SettingBackupTarget: func(value string) string { return ruleText(value, maxSetting) },
	SettingDrillAge:     ruleAge,
}

// maxSetting bounds a value whose rule has no bound, in bytes.
const maxSetting = 1024

// SettingNames returns the names that a setting can have.
func SettingNames() []string { return slices.Sorted(maps.Keys(settingRules)) }

// Validate returns a *FieldError where the name is not known or the value does not fit it.
func (s Setting) Validate() error {
	rule, known := settingRules[s.Name]
	if !known {
		return fmt.Errorf("%w: there is no setting %.64q", ErrInvalid, s.Name)
	}
	if broken := rule(s.Value); broken != "" {
		return &FieldError{Field: s.Name, Rule: broken}
	}
	return nil
}

// validateStored checks a setting that a later version may have set.
func (s Setting) validateStored() error {
	if _, known := settingRules[s.Name]; known {
		return s.Validate()
	}
	if rule := ruleName(s.Name); rule != "" {
		return &FieldError{Field: "name", Rule: rule}
	}
	if rule := ruleText(s.Value, maxSetting); rule != "" {
		return &FieldError{Field: "value", Rule: rule}
	}
	return nil
}

// UnmarshalJSON implements [json.Unmarshaler]. It returns only what a vault may hold.
func (s *Setting) UnmarshalJSON(data []byte) error {
	type plain Setting
	if err := wire.Unmarshal(data, (*plain)(s)); err != nil {
		return err
	}
	return s.validateStored()
}

func rulePortText(value string) string {
	if n, err := strconv.ParseUint(value, 10, 16); err != nil || n == 0 {
		return rulePort
	}
	return ""
}

func ruleAge(value string) string {
	if age, err := ParseAge(value); err != nil || age == 0 {
		return "must be an age such as 36h or 90d"
	}
	return ""
}
