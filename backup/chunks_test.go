package backup_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// bigFleet has nodes that do not compress well, so its backup has several of age's
// chunks.
func bigFleet(t testing.TB, nodes int) (vault.Config, *vault.Vault) {
	t.Helper()
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		noise := make([]byte, 400)
		for i := range nodes {
			rand.Read(noise)
			n := node(fmt.Sprintf("hive-%06d", i))
			n.InstallPath = "/opt/" + hex.EncodeToString(noise)
			if err := registry.InsertNodes(t.Context(), tx, n); err != nil {
				return err
			}
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("node.add")})
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, v
}

// TestChunks moves age's chunks about. The first chunks are good and are staged before the
// damage is found. Nothing of them may stay.
func TestChunks(t *testing.T) {
	const chunk = 64<<10 + 16
	cfg, v := bigFleet(t, 700)
	file, c := create(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	mac := bytes.Index(file, []byte("\n---"))
	body := mac + 1 + bytes.IndexByte(file[mac+1:], '\n') + 1 + 16
	head, payload := file[:body], file[body:]
	chunks := slices.Collect(slices.Chunk(payload, chunk))
	if len(chunks) < 4 {
		t.Fatalf("%d chunks, want some to move about", len(chunks))
	}
	moved := func(order ...int) []byte {
		whole := bytes.Clone(head)
		for _, n := range order {
			whole = append(whole, chunks[n]...)
		}
		return whole
	}
	last := len(chunks) - 1
	all := make([]int, len(chunks))
	for i := range all {
		all[i] = i
	}
	if !bytes.Equal(moved(all...), file) {
		t.Fatal("the file is not taken apart as it should be")
	}
	again := vaulttest.Open(t, cfg)
	other, _ := create(t, again) // another file key
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string][]byte{
		"swapped":                    moved(append([]int{0, 2, 1}, all[3:]...)...),
		"one missing":                moved(append([]int{0, 1}, all[3:]...)...),
		"one twice":                  moved(append([]int{0, 1, 1}, all[2:]...)...),
		"the last missing":           moved(all[:last]...),
		"the last twice":             moved(append(slices.Clone(all), last)...),
		"cut between chunks":         file[:body+2*chunk],
		"cut in a chunk":             file[:body+2*chunk+100],
		"the end of another file":    append(slices.Clone(file[:body+2*chunk]), other[body+2*chunk:]...),
		"the head of another file":   append(slices.Clone(other[:body]), payload...),
		"a changed bit in the third": changed(file, body+2*chunk+5000),
	} {
		opts := trusting(cfg, c)
		if _, err := backup.Verify(t.Context(), bytes.NewReader(broken), opts); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: verify: %v, want ErrDamaged", name, err)
		}
		for _, target := range []vault.Config{cfg, elsewhere(t, cfg)} {
			_, err := backup.Restore(t.Context(), target, bytes.NewReader(broken), backup.RestoreOptions{ReadOptions: opts, Replace: true})
			if !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("%s: restore: %v, want ErrDamaged", name, err)
			}
			after, err := os.ReadFile(target.Path)
			if target.Path == cfg.Path && !bytes.Equal(before, after) || target.Path != cfg.Path && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: the target was changed", name)
			}
			for _, suffix := range []string{".new", ".new-journal"} {
				if _, err := os.Stat(target.Path + suffix); err == nil {
					t.Errorf("%s: %s is left", name, suffix)
				}
			}
		}
	}
}

func changed(file []byte, at int) []byte {
	c := bytes.Clone(file)
	c[at] ^= 0x10
	return c
}

// TestBesideAWriter: each backup shows one moment while another goroutine writes.
func TestBesideAWriter(t *testing.T) {
	cfg, v := fleet(t)
	r := registry.New(v)
	ended := make(chan error)
	stop := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := r.CreateNode(t.Context(), node(fmt.Sprintf("extra-%d", i))); err != nil {
				ended <- err
				return
			}
		}
	}()
	var last int64
	for range 10 {
		file, c := create(t, v)
		m, err := backup.Verify(t.Context(), bytes.NewReader(file), trusting(cfg, c))
		if err != nil {
			t.Fatal(err)
		}
		if m.Counts.Nodes < last {
			t.Errorf("%d nodes after %d", m.Counts.Nodes, last)
		}
		last = m.Counts.Nodes
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d nodes at the last backup", last)
}
