package hive_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// A node is logged in to by its key and its pins, through its jumps.
func ExampleDialer_Dial() {
	ctx := context.Background()
	r, err := registry.Open(ctx, vault.Config{Path: "/var/lib/queen-rbee/beehives.db", CredentialsDir: "/run/credentials/queen-rbee.service"})
	if errors.Is(err, vault.ErrNoVault) {
		fmt.Println("there is no vault yet")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	d := &hive.Dialer{Registry: r, Timeout: 10 * time.Second}
	conn, err := d.Dial(ctx, "hive-01")
	switch {
	case errors.Is(err, hive.ErrHostKeyUnknown), errors.Is(err, hive.ErrHostKeyChanged):
		bad, _ := errors.AsType[*hive.HostKeyError](err)
		log.Fatal("show this key to a person: ", bad)
	case errors.Is(err, hive.ErrBusy):
		log.Fatal("the server has too many logins under way: try again")
	case err != nil:
		log.Fatal(err)
	}
	defer conn.Close()
	machine, err := conn.Discover(ctx)
	if err != nil {
		log.Fatal(err)
	}
	backends, devices := machine.Backends()
	if err := r.UpdateCapabilities(ctx, "hive-01", backends, devices); err != nil {
		log.Fatal(err)
	}
	// Output: there is no vault yet
}
