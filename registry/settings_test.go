package registry_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func TestSettings(t *testing.T) {
	ctx := t.Context()
	v := vaulttest.New(t)
	r := registry.New(v)
	for i, s := range []struct {
		name, value string
		fits        bool
	}{
		{registry.SettingSSHUser, "ops", true},
		{registry.SettingSSHUser, "admin", true},
		{registry.SettingSSHPort, "2222", true},
		{registry.SettingSSHPort, "0", false},
		{registry.SettingSSHPort, "65536", false},
		{registry.SettingSSHPort, "-1", false},
		{registry.SettingDrillAge, "90d", true},
		{registry.SettingDrillAge, "0s", false},
		{registry.SettingDrillAge, "soon", false},
		{registry.SettingGitRepo, "https://ops:secret@example.org/r.git", false},
		{registry.SettingGitBranch, "a..b", false},
		{registry.SettingInstallPath, "opt", false},
		{registry.SettingBackupTarget, "", false},
		{registry.SettingBackupTarget, "disk\x1b", false},
		{registry.SettingBackupTarget, strings.Repeat("x", 1025), false},
		{"colour", "auto", false},
	} {
		err := r.SetSetting(ctx, registry.Setting{Name: s.name, Value: s.value})
		if (err == nil) != s.fits || err != nil && !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%d: %s=%q: %v", i, s.name, s.value, err)
		}
	}
	want := map[string]string{registry.SettingSSHUser: "admin", registry.SettingSSHPort: "2222", registry.SettingDrillAge: "90d"}
	if got, err := r.Settings(ctx); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := r.SetSetting(ctx, registry.Setting{Name: registry.SettingSSHUser, Value: "admin"}); err != nil {
		t.Error(err)
	}
	if err := r.UnsetSetting(ctx, registry.SettingSSHPort); err != nil {
		t.Error(err)
	}
	if err := r.UnsetSetting(ctx, registry.SettingSSHPort); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("unset twice: %v", err)
	}
	var details []string
	err := v.View(ctx, func(tx *vault.Tx) error {
		for row, err := range tx.AuditRows(ctx, 0) {
			if err != nil {
				return err
			}
			if strings.HasPrefix(row.Action, "setting.") {
				details = append(details, row.Action+" "+row.Subject+" "+row.Detail)
			}
		}
		return tx.VerifyContent(ctx)
	})
	wantDetails := "setting.set ssh-user value: none -> ops; setting.set ssh-user value: ops -> admin; setting.set ssh-port value: none -> 2222; setting.set drill-age value: none -> 90d; setting.unset ssh-port 2222"
	if got := strings.Join(details, "; "); err != nil || got != wantDetails {
		t.Errorf("%s, %v\nwant %s", got, err, wantDetails)
	}
}

// TestSettingOfLaterVersion: a setting that this version does not know is kept.
func TestSettingOfLaterVersion(t *testing.T) {
	for line, fits := range map[string]bool{
		`{"name":"shell","value":"bash"}`:             true,
		`{"name":"ssh-user","value":"ops"}`:           true,
		`{"name":"ssh-user","value":"-x"}`:            false,
		`{"name":"she ll","value":"bash"}`:            false,
		`{"name":"shell","value":"a\u001b"}`:          false,
		`{"name":"shell","value":"bash","more":true}`: false,
	} {
		var s registry.Setting
		if err := s.UnmarshalJSON([]byte(line)); (err == nil) != fits {
			t.Errorf("%s: %v", line, err)
		}
	}
}
