package backup_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/s3test"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

const bucket = "fleet-backups"

// bucketServer starts a server with a bucket, a proxy before it, and a user who may only
// write.
func bucketServer(t *testing.T) (*s3test.Server, *s3test.Proxy, s3test.Credential) {
	t.Helper()
	server := s3test.Start(t)
	server.Bucket(t, bucket, true)
	writer := server.User(t, "writer")
	server.Allow(t, bucket, map[string][]string{"writer": {"s3:PutObject", "s3:PutObjectRetention"}})
	return server, server.Proxy(t), writer
}

func addBucket(t *testing.T, v *vault.Vault, name, endpoint string, c s3test.Credential, retain time.Duration) backup.Target {
	t.Helper()
	target := backup.Target{Name: name, URL: "s3://" + bucket + "/" + name, Endpoint: endpoint, AccessKey: c.AccessKey, Secret: []byte(c.Secret), Retain: retain}
	if err := backup.AddTarget(t.Context(), v, target); err != nil {
		t.Fatal(err)
	}
	return target
}

// readAs reads what a target holds, with another credential.
func readAs(t *testing.T, target backup.Target, endpoint string, c s3test.Credential) (backup.Store, []backup.Object) {
	t.Helper()
	target.Endpoint, target.AccessKey, target.Secret = endpoint, c.AccessKey, []byte(c.Secret)
	s, err := backup.OpenStore(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := backup.Newest(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return s, objects
}

// TestWriteOnlyTarget: a credential that may only write makes locked backups. It does not
// read, list or delete, and what it wrote verifies.
func TestWriteOnlyTarget(t *testing.T) {
	server, proxy, writer := bucketServer(t)
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	target := addBucket(t, v, "off", proxy.URL, writer, time.Hour)
	c, err := backup.Create(t.Context(), v, backup.CreateOptions{Targets: []string{"off"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(proxy.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
	written := c.Copies[0]
	if written.Version == "" || written.LockedUntil.Before(time.Now().Add(59*time.Minute)) {
		t.Errorf("%+v", written)
	}
	own, err := backup.OpenTarget(t.Context(), v, "off")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Open(t.Context(), written.Name, written.Version); !errors.Is(err, backup.ErrDenied) {
		t.Errorf("read: %v", err)
	}
	if _, err := backup.Newest(t.Context(), own); !errors.Is(err, backup.ErrDenied) {
		t.Errorf("list: %v", err)
	}
	if err := own.Remove(t.Context(), written.Name, written.Version); !errors.Is(err, backup.ErrLocked) && !errors.Is(err, backup.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
	store, objects := readAs(t, target, server.URL, server.Root)
	if len(objects) != 1 || objects[0].Version != written.Version || objects[0].Size != c.Size {
		t.Fatalf("%+v", objects)
	}
	if err := store.Remove(t.Context(), written.Name, written.Version); !errors.Is(err, backup.ErrLocked) {
		t.Errorf("delete as root: %v", err)
	}
	r, err := store.Open(t.Context(), objects[0].Name, objects[0].Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := backup.Verify(t.Context(), r, trusting(cfg, c)); err != nil {
		t.Error(err)
	}
}

// TestPartOfTargets: where a target fails, the others have the backup, the record says why
// not, and the next run catches up. No record or file holds a secret.
func TestPartOfTargets(t *testing.T) {
	server, proxy, writer := bucketServer(t)
	v := vaulttest.Open(t, vaulttest.Config(t))
	target := addBucket(t, v, "off", proxy.URL, writer, 0)
	dir := vaulttest.Dir(t)
	if err := backup.AddTarget(t.Context(), v, backup.Target{Name: "usb", URL: "dir:" + dir}); err != nil {
		t.Fatal(err)
	}
	both := backup.CreateOptions{Targets: []string{"off", "usb"}}
	refuse := func(status int, code string) s3test.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ int, _ http.Handler) { s3test.Refuse(w, status, code) }
	}
	lose := func(w http.ResponseWriter, r *http.Request, _ int, next http.Handler) { s3test.Lost(r, next) }
	faults := map[string]s3test.Fault{"500": refuse(500, "InternalError"), "expired": refuse(400, "ExpiredToken"), "full": refuse(507, "InsufficientStorage"), "lost": lose}
	for name, fault := range faults {
		proxy.Strike(fault)
		c, err := backup.Create(t.Context(), v, both)
		if !errors.Is(err, backup.ErrPartial) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
		off, usb := c.Copies[0], c.Copies[1]
		if off.There() || off.Failed == "" || strings.Contains(off.Failed, "planted") || !usb.There() {
			t.Errorf("%s: %+v", name, c.Copies)
		}
	}
	proxy.Strike(nil)
	c, err := backup.Create(t.Context(), v, both)
	if err != nil || !c.Copies[0].There() || !c.Copies[1].There() {
		t.Errorf("%+v, %v", c.Copies, err)
	}
	_, objects := readAs(t, target, server.URL, server.Root)
	// The upload whose answer was lost is there too, under the name that was recorded.
	if len(objects) != 2 || objects[0].Name != c.Copies[0].Name {
		t.Errorf("%+v", objects)
	}
	records, err := backup.List(t.Context(), v)
	if err != nil || len(records) != len(faults)+1 {
		t.Errorf("%d records, %v", len(records), err)
	}
	noFileHolds(t, filepath.Dir(v.Path()), writer.Secret)
	noFileHolds(t, dir, writer.Secret)
}

// TestTargetOfAnotherMachine: a target whose profile this machine does not have fails alone.
func TestTargetOfAnotherMachine(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	v := vaulttest.Open(t, vaulttest.Config(t))
	for _, target := range []backup.Target{{Name: "off", URL: "s3://" + bucket, Profile: "elsewhere"}, {Name: "usb", URL: "dir:" + vaulttest.Dir(t)}} {
		if err := backup.AddTarget(t.Context(), v, target); err != nil {
			t.Fatal(err)
		}
	}
	c, err := backup.Create(t.Context(), v, backup.CreateOptions{Targets: []string{"off", "usb"}})
	if !errors.Is(err, backup.ErrPartial) || c.Copies[0].There() || !strings.Contains(c.Copies[0].Failed, `"elsewhere"`) || !c.Copies[1].There() {
		t.Errorf("%+v, %v", c.Copies, err)
	}
	off, err := backup.OpenTarget(t.Context(), v, "off")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.CheckTarget(t.Context(), off, nil); err == nil {
		t.Error("it was checked")
	}
}

// noFileHolds looks for a secret in each file below a directory.
func noFileHolds(t *testing.T, dir, secret string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestManyVaultsOneBucket: backups that many vaults write into one place at once are all
// there, each as its writer recorded it.
func TestManyVaultsOneBucket(t *testing.T) {
	server, proxy, writer := bucketServer(t)
	const writers = 16
	var target backup.Target
	vaults := make([]*vault.Vault, writers)
	for i := range vaults {
		vaults[i] = vaulttest.Open(t, vaulttest.Config(t))
		target = addBucket(t, vaults[i], "off", proxy.URL, writer, time.Hour)
	}
	created := make([]backup.Created, writers)
	var writing sync.WaitGroup
	for i, v := range vaults {
		writing.Go(func() {
			var err error
			if created[i], err = backup.Create(t.Context(), v, backup.CreateOptions{Targets: []string{"off"}}); err != nil {
				t.Error(err)
			}
		})
	}
	writing.Wait()
	_, objects := readAs(t, target, server.URL, server.Root)
	there := map[string]backup.Object{}
	for _, o := range objects {
		there[o.Name] = o
	}
	for _, c := range created {
		if o := there[c.Copies[0].Name]; o.Version != c.Copies[0].Version || o.Size != c.Size || o.Hidden {
			t.Errorf("%+v is there as %+v", c.Copies[0], o)
		}
	}
	if len(objects) != writers {
		t.Errorf("%d objects of %d writers", len(objects), writers)
	}
}

// TestTargetElsewhere: a name stands for one place as long as copies are recorded there.
func TestTargetElsewhere(t *testing.T) {
	v := vaulttest.Open(t, vaulttest.Config(t))
	here := backup.Target{Name: "disk", URL: "dir:" + vaulttest.Dir(t)}
	there := backup.Target{Name: "disk", URL: "dir:" + vaulttest.Dir(t)}
	add := func(t *testing.T, target backup.Target, want error) {
		t.Helper()
		if err := backup.AddTarget(t.Context(), v, target); !errors.Is(err, want) {
			t.Errorf("add %s: %v", target.URL, err)
		}
	}
	remove := func(t *testing.T) {
		t.Helper()
		if err := backup.RemoveTarget(t.Context(), v, "disk"); err != nil {
			t.Fatal(err)
		}
	}
	add(t, here, nil)
	remove(t)
	add(t, there, nil) // nothing was written yet
	remove(t)
	add(t, here, nil)
	if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Targets: []string{"disk"}}); err != nil {
		t.Fatal(err)
	}
	remove(t)
	add(t, there, vault.ErrInvalid)
	elsewhere := backup.Target{Name: "disk", URL: "s3://" + bucket, Endpoint: "http://127.0.0.1:1", AccessKey: "writer", Secret: []byte("planted")}
	add(t, elsewhere, vault.ErrInvalid)
	add(t, here, nil)
	if targets, err := backup.Targets(t.Context(), v); err != nil || len(targets) != 1 || targets[0].URL != here.URL {
		t.Errorf("%+v, %v", targets, err)
	}
}

// TestTargetElsewhereByEndpoint: another server's bucket is another place, whatever its name.
func TestTargetElsewhereByEndpoint(t *testing.T) {
	server, proxy, writer := bucketServer(t)
	v := vaulttest.Open(t, vaulttest.Config(t))
	target := addBucket(t, v, "off", proxy.URL, writer, 0)
	if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Targets: []string{"off"}}); err != nil {
		t.Fatal(err)
	}
	if err := backup.RemoveTarget(t.Context(), v, "off"); err != nil {
		t.Fatal(err)
	}
	target.Endpoint, target.Secret = server.URL, []byte(writer.Secret)
	if err := backup.AddTarget(t.Context(), v, target); !errors.Is(err, vault.ErrInvalid) {
		t.Error(err)
	}
}
