package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// newVault makes a vault with one unlock method: an age identity. A desktop program would set a
// keyring instead, and a daemon a directory of systemd credentials.
func newVault(ctx context.Context) (cfg vault.Config, remove func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		log.Fatal(err)
	}
	cfg = vault.Config{
		Path:       filepath.Join(dir, "beehives.db"),
		Identities: []age.Identity{identity},
	}
	if _, err := vault.Create(ctx, cfg, vault.CreateOptions{
		Recipients: []string{identity.Recipient().String()},
	}); err != nil {
		log.Fatal(err)
	}
	return cfg, func() { os.RemoveAll(dir) }
}

// newRegistry opens the registry of a new vault.
func newRegistry(ctx context.Context) (r *registry.Registry, end func()) {
	cfg, remove := newVault(ctx)
	r, err := registry.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return r, func() {
		r.Close()
		remove()
	}
}

// node is a node with the fields that it cannot do without.
func node(name string) registry.Node {
	return registry.Node{
		Name:        name,
		SSHHost:     name + ".example.org",
		SSHPort:     registry.DefaultSSHPort,
		SSHUser:     "ops",
		GitRepoURL:  "https://git.example.org/fleet/hive.git",
		GitBranch:   "main",
		InstallPath: "/opt/hive",
	}
}

func Example() {
	ctx := context.Background()
	cfg, remove := newVault(ctx)
	defer remove()

	r, err := registry.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	ctx = vault.WithActor(ctx, vault.Actor{Name: "ops@example.org"})

	if err := r.AddNode(ctx, node("hive-01")); err != nil {
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

// A daemon opens by the credential that systemd decrypts for it, and needs no terminal.
func ExampleOpen_headless() {
	r, err := registry.Open(context.Background(), vault.Config{
		Path:           "/var/lib/queen-rbee/beehives.db",
		CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"),
		Via:            "queen", // stands in each row of the audit log
	})
	switch {
	case errors.Is(err, vault.ErrNoVault):
		fmt.Println("there is no vault yet")
		return
	case errors.Is(err, vault.ErrNoUnlockMethod), errors.Is(err, vault.ErrWrongKey):
		fmt.Println("the credential is missing, or another vault's")
		return
	case errors.Is(err, vault.ErrLocked):
		fmt.Println("another process holds the vault: try again later")
		return
	case err != nil:
		log.Fatal(err)
	}
	defer r.Close()
	// Output: there is no vault yet
}

// Watch tells what changes from now on, by this process or another.
func ExampleRegistry_Watch() {
	ctx := context.Background()
	r, end := newRegistry(ctx)
	defer end()

	if err := r.AddNode(ctx, node("hive-01")); err != nil {
		log.Fatal(err)
	}
	go func() { // another goroutine, or another process
		for range time.Tick(50 * time.Millisecond) {
			if err := r.UpdateLastConnected(ctx, "hive-01"); err != nil {
				return // the registry is closed
			}
		}
	}()
	for change, err := range r.Watch(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case change.Before == nil:
			fmt.Println(change.Name, "was added")
		case change.After == nil:
			fmt.Println(change.Name, "was removed")
		default:
			fmt.Println(change.Name, "changed")
		}
		break // a daemon goes on until ctx ends
	}
	// Output: hive-01 changed
}

// A whole fleet's heartbeat is one call. What did not change is not written.
func ExampleRegistry_UpdateStates() {
	ctx := context.Background()
	r, end := newRegistry(ctx)
	defer end()
	if err := r.AddNode(ctx, node("hive-01")); err != nil {
		log.Fatal(err)
	}

	beat := []registry.State{
		{Node: "hive-01", Status: registry.StatusOnline},
		{Node: "hive-99", Status: registry.StatusOnline},
	}
	for range 2 {
		report, err := r.UpdateStates(ctx, beat)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("written:", report.Written, "unknown:", report.Missing)
	}
	// Output:
	// written: 1 unknown: [hive-99]
	// written: 0 unknown: [hive-99]
}

// A signer signs with a key that never leaves the vault's process, and records each use.
func ExampleRegistry_Signer() {
	ctx := context.Background()
	r, end := newRegistry(ctx)
	defer end()
	if _, err := r.CreateNodeWithKey(ctx, node("hive-01"), registry.KeyChoice{Generate: true}); err != nil {
		log.Fatal(err)
	}

	signer, err := r.Signer(ctx, "hive-01") // for ssh.PublicKeys of an ssh.ClientConfig
	if err != nil {
		log.Fatal(err)
	}
	signature, err := signer.Sign(rand.Reader, []byte("challenge"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(signature.Format, signer.PublicKey().Verify([]byte("challenge"), signature))
	// Output: ssh-ed25519 <nil>
}

// A daemon opens a session, which gives way when another process needs the vault alone.
// Rotate in the process itself disturbs nobody.
func ExampleSession() {
	ctx := context.Background()
	cfg, remove := newVault(ctx)
	defer remove()
	fleet, err := registry.NewSession(ctx, func(ctx context.Context) (*vault.Vault, error) { return vault.Open(ctx, cfg) })
	if err != nil {
		log.Fatal(err)
	}
	defer fleet.Close()

	err = fleet.Use(ctx, func(r *registry.Registry) error {
		if err := r.AddNode(ctx, node("hive-01")); err != nil {
			return err
		}
		rotated, err := r.Vault().Rotate(ctx)
		if err != nil {
			return err
		}
		fmt.Println("generation", rotated.Generation) // now make a backup, and tell the operator rotated.Signer
		_, err = r.GetNode(ctx, "hive-01")
		return err
	})
	fmt.Println(err)
	// Output:
	// generation 2
	// <nil>
}
