package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

type keyRotationJSON struct {
	Node  string  `json:"node"`
	Old   *string `json:"old"`
	New   *string `json:"new"`
	Step  *string `json:"step"`
	Error *string `json:"error"`
	Hint  *string `json:"hint"`
}

// reportKeyRotation prints what became of a node. On an error it stays at its step.
func (a *app) reportKeyRotation(k registry.KeyRotation, err error) error {
	next := ""
	if err != nil {
		next = hint(err, "")
	}
	if a.json {
		j := keyRotationJSON{Node: k.Node, Old: wire.Nullable(k.Old), New: wire.Nullable(k.New), Hint: wire.Nullable(next)}
		if err != nil {
			j.Step, j.Error = wire.Nullable(string(k.Step)), wire.Nullable(err.Error())
		}
		return a.ui.object(j)
	}
	if err == nil {
		a.ui.info("%s accepts its new key only: %s", k.Node, k.New)
		return nil
	}
	a.ui.warn("%s: %s", k.Node, err)
	if next != "" {
		a.ui.info("  %s", next)
	}
	switch k.Step {
	case registry.RotationPending:
		a.ui.info("  It still uses its old key. To go on: rbee-vault ssh-key rotate %s", k.Node)
	case registry.RotationSwitched, registry.RotationSaved:
		a.ui.info("  It uses its new key, and the old one is still in the vault. To go on: rbee-vault ssh-key rotate %s", k.Node)
	}
	return nil
}

// reportOldKeys names the nodes that still use a key which was replaced for others.
func (a *app) reportOldKeys(shared map[string][]string) {
	for _, old := range slices.Sorted(maps.Keys(shared)) {
		if users := shared[old]; len(users) > 0 {
			a.ui.info("The old key %s stays in the vault: it is still in use by %s.", old, strings.Join(users, ", "))
		}
	}
}

type rotationPlanJSON struct {
	Node   string   `json:"node"`
	Old    *string  `json:"old"`
	New    *string  `json:"new"`
	Step   *string  `json:"step"`
	Others []string `json:"others"`
}

// planKeyRotation prints what would be done.
func (a *app) planKeyRotation(ctx context.Context, r *registry.Registry, keys []registry.SSHKey, names []string) error {
	rotations, err := r.ListKeyRotations(ctx)
	if err != nil {
		return err
	}
	without := 0
	for _, name := range names {
		plan := registry.KeyRotation{Node: name}
		if i := slices.IndexFunc(rotations, func(k registry.KeyRotation) bool { return k.Node == name }); i >= 0 {
			plan = rotations[i]
		} else if key := keyOf(keys, name); key != nil {
			plan.Old = key.Fingerprint
		} else {
			without++
		}
		var others []string // that go on using the old key
		for _, k := range keys {
			if k.Fingerprint == plan.Old {
				others = slices.DeleteFunc(slices.Clone(k.Nodes), func(n string) bool { return slices.Contains(names, n) })
			}
		}
		if a.json {
			j := rotationPlanJSON{name, wire.Nullable(plan.Old), wire.Nullable(plan.New), wire.Nullable(string(plan.Step)), notNil(others)}
			if err := a.ui.object(j); err != nil {
				return err
			}
			continue
		}
		text := "the key " + plan.Old + " would be replaced"
		switch {
		case plan.Old == "":
			text = "it uses no key in the vault"
		case plan.Step == registry.RotationPending:
			text = "the rotation would go on: the node would be given the new key " + plan.New
		case plan.Step != "":
			text = "the rotation would go on: the old key " + plan.Old + " would be removed from the node"
		}
		if len(others) > 0 {
			text += "; it stays in use by " + strings.Join(others, ", ")
		}
		a.ui.printf("%s: %s\n", name, text)
	}
	if without > 0 {
		return fmt.Errorf("%w: %d of %d nodes use no key in the vault", errPartial, without, len(names))
	}
	return nil
}
