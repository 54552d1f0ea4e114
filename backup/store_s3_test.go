package backup

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/internal/s3test"
	"github.com/rbee-keeper/rbee-vault/registry"
)

const testBucket = "fleet-backups"

// bucketTarget is a target in the test's bucket, with a credential.
func bucketTarget(endpoint string, c s3test.Credential) Target {
	return Target{Name: "bucket", URL: "s3://" + testBucket + "/fleet", Endpoint: endpoint, AccessKey: c.AccessKey, Secret: []byte(c.Secret)}
}

func openTestStore(t *testing.T, target Target) *s3Store {
	t.Helper()
	if err := target.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := openS3(t.Context(), target, storePatience)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// putText writes an object.
func putText(ctx context.Context, s Store, name, text string) (Copy, error) {
	return s.Put(ctx, name, io.NewSectionReader(strings.NewReader(text), 0, int64(len(text))), sha256.Sum256([]byte(text)))
}

func readText(t *testing.T, s Store, name, version string) string {
	t.Helper()
	r, err := s.Open(t.Context(), name, version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func objects(t *testing.T, s Store) []Object {
	t.Helper()
	list, err := Newest(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// objectCalled is the name of the n-th backup.
func objectCalled(n int64) string {
	return objectName(time.Date(2026, 1, 2, 15, 4, int(n), 0, time.UTC), n)
}

// TestS3Requests: a backup is written by one request that cannot replace an object, that
// carries the checksum, and the lock if there is one. No other request is made.
func TestS3Requests(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	sum := sha256.Sum256([]byte("content"))
	for _, test := range []struct {
		name   string
		change func(*Target)
		want   map[string]string
	}{
		{"plain", func(*Target) {}, map[string]string{"If-None-Match": "*", "X-Amz-Checksum-Sha256": base64Of(sum)}},
		{"lock", func(t *Target) { t.Retain = time.Hour }, map[string]string{"If-None-Match": "*", "X-Amz-Checksum-Sha256": base64Of(sum), "X-Amz-Object-Lock-Mode": "COMPLIANCE"}},
		{"no conditional", func(t *Target) { t.NoConditional = true }, map[string]string{"X-Amz-Checksum-Sha256": base64Of(sum)}},
		{"no checksum", func(t *Target) { t.NoChecksum, t.URL = true, "s3://"+testBucket }, map[string]string{"If-None-Match": "*"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := bucketTarget(proxy.URL, server.Root)
			test.change(&target)
			proxy.Strike(nil)
			before := time.Now()
			c, err := putText(t.Context(), openTestStore(t, target), objectCalled(1), "content")
			if err != nil || c.Version == "" || c.Written.IsZero() {
				t.Fatalf("%+v, %v", c, err)
			}
			requests := proxy.Requests()
			if len(requests) != 1 || requests[0].Method != http.MethodPut || requests[0].ContentLength != int64(len("content")) {
				t.Fatalf("%d requests", len(requests))
			}
			got := map[string]string{}
			for name, values := range requests[0].Header {
				if name == "If-None-Match" || strings.HasPrefix(name, "X-Amz-Checksum") || strings.HasPrefix(name, "X-Amz-Object-Lock") || name == "X-Amz-Trailer" || name == "Content-Encoding" {
					got[name] = values[0]
				}
			}
			until := got["X-Amz-Object-Lock-Retain-Until-Date"]
			delete(got, "X-Amz-Object-Lock-Retain-Until-Date")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if target.Retain == 0 {
				return
			}
			if sent, err := time.Parse(time.RFC3339, until); err != nil || !sent.Equal(c.LockedUntil) || sent.Before(before.Add(target.Retain-time.Second)) {
				t.Errorf("locked until %q, recorded %v, %v", until, c.LockedUntil, err)
			}
		})
	}
}

// TestS3Store: what was written is listed and read, version by version; a delete marker
// hides nothing, and a version written over it changes nothing.
func TestS3Store(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	target := bucketTarget(server.URL, server.Root)
	s := openTestStore(t, target)
	ctx := t.Context()
	older, newer := objectCalled(1), objectCalled(2)
	first, err := putText(ctx, s, newer, "newer")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := putText(ctx, s, older, "older"); err != nil {
		t.Fatal(err)
	}
	if _, err := putText(ctx, s, newer, "other"); !errors.Is(err, ErrExists) {
		t.Errorf("written over: %v", err)
	}
	server.Overwrite(t, testBucket, "fleet/"+newer, "by another writer")
	server.Hide(t, testBucket, "fleet/"+newer)
	server.Overwrite(t, testBucket, "fleet/deeper/"+newer, "not of this target")
	server.Overwrite(t, testBucket, "fleet/notes.txt", "no backup")
	server.Overwrite(t, testBucket, "fleet/"+older+".copy", "its name begins the same")

	list := objects(t, s)
	if len(list) != 3 || list[0].Name != newer || list[0].Version != first.Version || !list[0].Hidden || list[0].Size != 5 || list[2].Name != older || list[2].Hidden {
		t.Errorf("%+v", list)
	}
	for _, version := range []string{"", first.Version} {
		if got := readText(t, s, newer, version); got != "newer" {
			t.Errorf("version %q: %q", version, got)
		}
	}
	if got := readText(t, s, newer, list[1].Version); got != "by another writer" {
		t.Error(got)
	}
	if _, err := s.Open(ctx, objectCalled(3), ""); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
	if err := s.Remove(ctx, newer, ""); err == nil {
		t.Error("removed one of two versions")
	}
	if err := s.Remove(ctx, older, ""); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, newer, first.Version); err != nil {
		t.Error(err)
	}
	if list := objects(t, s); len(list) != 1 || list[0].Version == first.Version {
		t.Errorf("%+v", list)
	}
}

// TestS3Lock: a locked version is not deleted, and the error says until when.
func TestS3Lock(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	target := bucketTarget(server.URL, server.Root)
	target.Retain = time.Hour
	s := openTestStore(t, target)
	c, err := putText(t.Context(), s, objectCalled(1), "content")
	if err != nil {
		t.Fatal(err)
	}
	name := objects(t, s)[0].Name
	for _, version := range []string{"", c.Version} {
		err := s.Remove(t.Context(), name, version)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), c.LockedUntil.Format(time.RFC3339)) {
			t.Errorf("version %q: %v", version, err)
		}
	}
	if got := readText(t, s, name, c.Version); got != "content" {
		t.Error(got)
	}
}

// TestS3WithoutVersions: a bucket that keeps no versions is written, listed, read and
// emptied too.
func TestS3WithoutVersions(t *testing.T) {
	server := s3test.Start(t)
	server.PlainBucket(t, testBucket)
	proxy := server.Proxy(t)
	s := openTestStore(t, bucketTarget(proxy.URL, server.Root))
	for _, listing := range []string{"versions", "objects alone"} {
		if listing == "objects alone" {
			proxy.Strike(func(w http.ResponseWriter, r *http.Request, _ int, next http.Handler) {
				if r.URL.Query().Has("versions") {
					s3test.Refuse(w, http.StatusNotImplemented, "NotImplemented")
					return
				}
				next.ServeHTTP(w, r)
			})
		}
		name := objectCalled(1)
		c, err := putText(t.Context(), s, name, "content")
		if err != nil || c.Version != "" {
			t.Fatalf("%s: %+v, %v", listing, c, err)
		}
		if list := objects(t, s); len(list) != 1 || list[0].Name != name || list[0].Version != "" || list[0].Hidden {
			t.Errorf("%s: %+v", listing, list)
		}
		if got := readText(t, s, name, ""); got != "content" {
			t.Errorf("%s: %q", listing, got)
		}
		if err := s.Remove(t.Context(), name, ""); err != nil {
			t.Errorf("%s: %v", listing, err)
		}
		if list := objects(t, s); len(list) != 0 {
			t.Errorf("%s: %+v", listing, list)
		}
	}
}

// TestS3Pages: a listing has more than one page.
func TestS3Pages(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, false)
	const count = 1003
	for i := range count {
		server.Place(t, testBucket, "fleet/"+objectCalled(int64(i)), fmt.Sprint(i))
	}
	if list := objects(t, openTestStore(t, bucketTarget(server.URL, server.Root))); len(list) != count {
		t.Errorf("%d of %d", len(list), count)
	}
}

// TestS3ManyWriters: of writers that choose the same name at once, one writes it.
func TestS3ManyWriters(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	s := openTestStore(t, bucketTarget(server.URL, server.Root))
	name := objectCalled(1)
	const writers = 16
	results := make(chan error, writers)
	for i := range writers {
		go func() {
			_, err := putText(t.Context(), s, name, fmt.Sprint("writer ", i))
			results <- err
		}()
	}
	written := 0
	for range writers {
		err := <-results
		if err == nil {
			written++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if list := objects(t, s); written != 1 || len(list) != 1 {
		t.Errorf("%d wrote, %d versions", written, len(list))
	}
}

// TestS3Addresses: only this machine is talked to without TLS, and no secret is in an
// address.
func TestS3Addresses(t *testing.T) {
	secret := s3test.Credential{AccessKey: "key", Secret: "planted"}
	for endpoint, good := range map[string]bool{
		"https://s3.example.org":            true,
		"https://s3.example.org:9000":       true,
		"http://127.0.0.1:7070":             true,
		"http://[::1]:7070":                 true,
		"http://localhost:7070":             true,
		"http://s3.example.org":             false,
		"http://127.0.0.1.example.org":      false,
		"https://user:planted@example.org":  false,
		"https://s3.example.org/?a=planted": false,
		"s3.example.org":                    false,
	} {
		err := bucketTarget(endpoint, secret).Validate()
		if (err == nil) != good || err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	for url, good := range map[string]bool{
		"s3://bucket": true, "s3://bucket/a/b": true, "s3://bucket/a/": true, "s3://bucket/a b": true,
		"s3://": false, "s3:///a": false, "s3://bucket/../a": false, "s3://bucket/a//b": false, "s3://bucket/a?versionId=1": false, "s3://bucket/a\nb": false,
	} {
		target := bucketTarget("", secret)
		target.URL = url
		if err := target.Validate(); (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://s3.example.invalid")
	_, err := putText(t.Context(), openTestStore(t, bucketTarget("", secret)), objectCalled(1), "content")
	if err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Error(err)
	}
}

// TestS3TLS: a server with TLS is reached if this machine knows its authority.
func TestS3TLS(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy, authority := server.TLSProxy(t)
	target := bucketTarget(proxy.URL, server.Root)
	if _, err := putText(t.Context(), openTestStore(t, target), objectCalled(1), "content"); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Error(err)
	}
	t.Setenv("AWS_CA_BUNDLE", authority)
	s := openTestStore(t, target)
	name := objectCalled(1)
	if _, err := putText(t.Context(), s, name, "content"); err != nil {
		t.Fatal(err)
	}
	if got := readText(t, s, name, ""); got != "content" {
		t.Error(got)
	}
	for _, r := range proxy.Requests() {
		if r.Method == http.MethodPut && (r.Header.Get("If-None-Match") != "*" || r.Header.Get("X-Amz-Trailer") != "") {
			t.Errorf("%v", r.Header)
		}
	}
}

func base64Of(sum [sha256.Size]byte) string { return base64.StdEncoding.EncodeToString(sum[:]) }
