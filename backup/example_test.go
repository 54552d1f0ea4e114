package backup_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// A schedule calls this. Where nothing changed since the last backup, that is recorded, and no
// file is written.
func backUp(ctx context.Context, v *vault.Vault, dir string) error {
	opts := backup.CreateOptions{Dir: dir, Program: "queen"}
	last, unchanged, err := backup.Confirm(ctx, v, opts)
	if err != nil {
		return err
	}
	if unchanged {
		fmt.Println("nothing new since backup", last.Sequence)
		return nil
	}
	made, err := backup.Create(ctx, v, opts)
	if err != nil && !errors.Is(err, backup.ErrPartial) { // of several targets, some have it
		return err
	}
	fmt.Println("backup", made.Sequence, "of", made.Nodes, "nodes")
	return err
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		log.Fatal(err)
	}
	cfg := vault.Config{Path: filepath.Join(dir, "beehives.db"), Identities: []age.Identity{identity}}
	if _, err := vault.Create(ctx, cfg, vault.CreateOptions{Recipients: []string{identity.Recipient().String()}}); err != nil {
		log.Fatal(err)
	}
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()

	for range 2 {
		if err := backUp(ctx, v, filepath.Join(dir, "backups")); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// backup 1 of 0 nodes
	// nothing new since backup 1
}
