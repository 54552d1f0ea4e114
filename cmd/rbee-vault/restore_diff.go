package main

import (
	"context"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// changeNames say where a node is that is not the same on both sides.
var changeNames = map[registry.MergeAction]string{
	registry.MergeAdd:      "backup",
	registry.MergeKeep:     "live",
	registry.MergeConflict: "both",
}

type diffJSON struct {
	Name    string                `json:"node_name"`
	In      string                `json:"in"`
	Removed *string               `json:"removed"`
	Fields  []registry.Difference `json:"fields"`
}

// compareWithVault prints in what the backup and the vault differ.
func (a *app) compareWithVault(ctx context.Context, v *vault.Vault, part *backup.Part) error {
	list, err := part.Compare(ctx, v)
	if err != nil {
		return err
	}
	t := newTable("NODE", "IN", "FIELD", "BACKUP", "LIVE")
	same := 0
	for _, m := range list {
		in, differs := changeNames[m.Action]
		if !differs {
			same++
			continue
		}
		if a.json {
			if err := a.ui.object(diffJSON{m.Name, in, wire.Nullable(m.Removed), notNil(m.Differences)}); err != nil {
				return err
			}
			continue
		}
		if len(m.Differences) == 0 {
			t.row(m.Name, in, m.Removed, "", "")
		}
		for _, d := range m.Differences {
			t.row(m.Name, in, d.Field, d.Backup, d.Live)
		}
	}
	if !a.json {
		a.ui.table(t)
	}
	a.ui.info("backup %d of %s: %d nodes differ, %d are the same", part.Manifest.Sequence, part.Manifest.Created, len(list)-same, same)
	return nil
}
