package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestMain lets the test binary be a second process. It reads one command from each
// line and answers after the commit.
func TestMain(m *testing.M) {
	if path, identity, ok := strings.Cut(os.Getenv("RBEE_REGISTRY_CHILD"), "|"); ok {
		if err := serve(path, identity); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve runs the commands "set NAME PORT" and "remove NAME".
func serve(path, identity string) error {
	id, err := age.ParseX25519Identity(identity)
	if err != nil {
		return err
	}
	ctx := context.Background()
	r, err := registry.Open(ctx, vault.Config{Path: path, Identities: []age.Identity{id}})
	if err != nil {
		return err
	}
	defer r.Close()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var op, name string
		var port uint16
		fmt.Sscan(lines.Text(), &op, &name, &port)
		if err := apply(ctx, r, op, name, port); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

func apply(ctx context.Context, r *registry.Registry, op, name string, port uint16) error {
	if op == "remove" {
		_, err := r.RemoveNode(ctx, name)
		return err
	}
	n := keyNode(name)
	n.SSHPort = port
	return r.AddNode(ctx, n)
}

// secondProcess starts the second process and returns a function that sends it a command.
func secondProcess(t testing.TB, cfg vault.Config) func(op, name string, port uint16) error {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RBEE_REGISTRY_CHILD="+cfg.Path+"|"+cfg.Identities[0].(*age.X25519Identity).String())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	answers := bufio.NewScanner(out)
	if !answers.Scan() || answers.Text() != "ready" {
		t.Fatalf("the second process says %q", answers.Text())
	}
	return func(op, name string, port uint16) error {
		fmt.Fprintln(in, op, name, port)
		if !answers.Scan() || answers.Text() != "done" {
			return fmt.Errorf("the second process says %q", answers.Text())
		}
		return nil
	}
}

// TestReadsSeeOtherProcesses: the next read, by name or of the list, has what another
// process committed, even when the value was cached.
func TestReadsSeeOtherProcesses(t *testing.T) {
	cfg := vaulttest.Config(t)
	r := registry.New(vaulttest.Open(t, cfg))
	other := secondProcess(t, cfg)
	for port := uint16(1); port <= 200; port++ {
		if err := other("set", "hive-01", port); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			n, err := r.GetNode(t.Context(), "hive-01")
			if err != nil || n.SSHPort != port {
				t.Fatalf("port %d, %v, want %d", n.SSHPort, err, port)
			}
			list, err := r.ListNodes(t.Context())
			if err != nil || len(list) != 1 || list[0].SSHPort != port {
				t.Fatalf("%+v, %v, want port %d", list, err, port)
			}
		}
	}
}

// TestReadsNeverGoBack: while two processes write and one rotates, a read is never
// older than the read before, nor than the last commit before it began.
func TestReadsNeverGoBack(t *testing.T) {
	cfg := vaulttest.Config(t)
	r := registry.New(vaulttest.Open(t, cfg))
	ctx := t.Context()
	if err := apply(ctx, r, "set", "hive-01", 1); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	committed := uint16(1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := uint16(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				least := max(committed, last)
				mu.Unlock()
				n, err := r.GetNode(ctx, "hive-01")
				if err != nil || n.SSHPort < least {
					t.Errorf("port %d, %v, want %d at least", n.SSHPort, err, least)
					return
				}
				last = n.SSHPort
			}
		})
	}
	for port := uint16(2); port < 300; port++ {
		if err := apply(ctx, r, "set", "hive-01", port); err != nil {
			t.Error(err)
			break
		}
		mu.Lock()
		committed = port
		mu.Unlock()
		if port%100 == 0 {
			if _, err := r.Vault().Rotate(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestReadsShareNothing: a change of a returned value changes no other value.
func TestReadsShareNothing(t *testing.T) {
	r := registry.New(vaulttest.New(t))
	ctx := t.Context()
	n := keyNode("hive-01")
	n.Backends, n.Devices = []string{"cuda"}, map[string]uint32{"cuda": 2}
	if err := r.CreateNode(ctx, n); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got, err := r.GetNode(ctx, "hive-01")
		if err != nil || got.Backends[0] != "cuda" || got.Devices["cuda"] != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		got.Backends[0], got.Devices["cuda"] = "metal", 7
		list, err := r.ListNodes(ctx)
		if err != nil || list[0].Backends[0] != "cuda" || list[0].Devices["cuda"] != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		list[0].Backends[0], list[0].Devices["cuda"] = "metal", 7
	}
}

// TestModel runs random operations in goroutines and in a second process, and compares
// the result with a map.
func TestModel(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	r := registry.New(v)
	other := secondProcess(t, cfg)
	ctx := t.Context()
	want := map[string]uint16{}
	// All runs use the same vault. When a failed run is repeated, it may fail in another
	// way: only the first failure counts.
	first := ""
	fatalf := func(rt *rapid.T, format string, args ...any) {
		if first == "" {
			first = fmt.Sprintf(format, args...)
		}
		rt.Fatalf("first: %s; now: %s", first, fmt.Sprintf(format, args...))
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.Map(rapid.IntRange(0, 9), func(i int) string { return "hive-" + strconv.Itoa(i) })
		t.Repeat(map[string]func(*rapid.T){
			"set here": func(t *rapid.T) {
				n, port := name.Draw(t, "name"), rapid.Uint16Range(1, 65535).Draw(t, "port")
				if err := apply(ctx, r, "set", n, port); err != nil {
					fatalf(t, "%v", err)
				}
				want[n] = port
			},
			"set there": func(t *rapid.T) {
				n, port := name.Draw(t, "name"), rapid.Uint16Range(1, 65535).Draw(t, "port")
				if err := other("set", n, port); err != nil {
					fatalf(t, "%v", err)
				}
				want[n] = port
			},
			"remove here": func(t *rapid.T) {
				n := name.Draw(t, "name")
				if err := apply(ctx, r, "remove", n, 0); err != nil {
					fatalf(t, "%v", err)
				}
				delete(want, n)
			},
			"remove there": func(t *rapid.T) {
				n := name.Draw(t, "name")
				if err := other("remove", n, 0); err != nil {
					fatalf(t, "%v", err)
				}
				delete(want, n)
			},
			"many at once": func(t *rapid.T) {
				port := rapid.Uint16Range(1, 65535).Draw(t, "port")
				var wg sync.WaitGroup
				errs := make(chan error, 10)
				for i := range 10 {
					wg.Go(func() { errs <- apply(ctx, r, "set", "hive-"+strconv.Itoa(i), port) })
				}
				wg.Wait()
				for i := range 10 {
					if err := <-errs; err != nil {
						fatalf(t, "%v", err)
					}
					want["hive-"+strconv.Itoa(i)] = port
				}
			},
			"": func(t *rapid.T) {
				list, err := r.ListNodes(ctx)
				if err != nil || len(list) != len(want) {
					fatalf(t, "%d nodes, %v, want %d", len(list), err, len(want))
				}
				for _, n := range list {
					if n.SSHPort != want[n.Name] {
						fatalf(t, "%s has port %d, want %d", n.Name, n.SSHPort, want[n.Name])
					}
				}
				n := name.Draw(t, "look")
				got, err := r.GetNode(ctx, n)
				if port, ok := want[n]; ok && (err != nil || got.SSHPort != port) || !ok && !errors.Is(err, registry.ErrNotFound) {
					fatalf(t, "%s: %+v, %v, want port %d", n, got, err, port)
				}
			},
		})
	})
	err := v.View(ctx, func(tx *vault.Tx) error {
		_, err := tx.VerifyAudit(ctx)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := v.CheckPages(ctx); err != nil {
		t.Error(err)
	}
}
