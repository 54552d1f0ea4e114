package registry

import "github.com/rbee-keeper/rbee-vault/vault"

// The actions of this package in the audit log; the package comment says when each is
// written.
const (
	ActionAddNode            vault.Action = "node.add"
	ActionUpdateNode         vault.Action = "node.update"
	ActionNodeCapabilities   vault.Action = "node.capabilities"
	ActionRenameNode         vault.Action = "node.rename"
	ActionRemoveNode         vault.Action = "node.remove"
	ActionImportNodes        vault.Action = "node.import"
	ActionAddSSHKey          vault.Action = "ssh-key.add"
	ActionGenerateSSHKey     vault.Action = "ssh-key.generate"
	ActionAssignSSHKey       vault.Action = "ssh-key.assign"
	ActionRemoveSSHKey       vault.Action = "ssh-key.remove"
	ActionExportSSHKey       vault.Action = "ssh-key.export"
	ActionRefuseSSHKeyExport vault.Action = "ssh-key.export-refused"
	ActionRotateSSHKey       vault.Action = "ssh-key.rotate"
	ActionUseSSHKey          vault.Action = "ssh-key.use"
	ActionSignSSHKey         vault.Action = "ssh-key.sign"
	ActionTrustHostKey       vault.Action = "host-key.trust"
	ActionForgetHostKey      vault.Action = "host-key.forget"
	ActionSetSetting         vault.Action = "setting.set"
	ActionUnsetSetting       vault.Action = "setting.unset"
)
