package registry_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// A vault with one unlock method: an age identity. A desktop program would set
	// a keyring instead.
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		log.Fatal(err)
	}
	cfg := vault.Config{
		Path:       filepath.Join(dir, "beehives.db"),
		Identities: []age.Identity{identity},
	}
	if _, err := vault.Create(ctx, cfg, vault.CreateOptions{
		Recipients: []string{identity.Recipient().String()},
	}); err != nil {
		log.Fatal(err)
	}

	r, err := registry.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	ctx = vault.WithActor(ctx, vault.Actor{Name: "ops@example.org"})

	if err := r.AddNode(ctx, registry.Node{
		Name:        "hive-01",
		SSHHost:     "hive-01.example.org",
		SSHPort:     registry.DefaultSSHPort,
		SSHUser:     "ops",
		GitRepoURL:  "https://git.example.org/fleet/hive.git",
		GitBranch:   "main",
		InstallPath: "/opt/hive",
	}); err != nil {
		log.Fatal(err)
	}
	if err := r.UpdateCapabilities(ctx, "hive-01", []string{"cuda", "cpu"}, map[string]uint32{"cuda": 2}); err != nil {
		log.Fatal(err)
	}

	n, err := r.GetNode(ctx, "hive-01")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n.SSHUser+"@"+n.SSHHost, n.Status, n.Backends, n.Devices)
	// Output: ops@hive-01.example.org unknown [cpu cuda] map[cuda:2]
}
