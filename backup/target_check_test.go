package backup

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rbee-keeper/rbee-vault/internal/s3test"
)

// What a credential that only writes may do, and what one that prunes may.
var (
	writeOnly   = []string{"s3:PutObject", "s3:PutObjectRetention"}
	writeDelete = []string{"s3:PutObject", "s3:PutObjectRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"}
)

// TestCheckTarget: a check says whether a store replaces objects, whether its lock is
// proven, and what the credential can do besides. A lock is never proven by a credential
// that may not delete.
func TestCheckTarget(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	server.PlainBucket(t, "plain")
	server.Bucket(t, "locks-by-default", true)
	server.LockByDefault(t, "locks-by-default", 1)
	proxy := server.Proxy(t)
	writer, pruner := server.User(t, "writer"), server.User(t, "pruner")
	for _, bucket := range []string{testBucket, "plain"} {
		server.Allow(t, bucket, map[string][]string{"writer": writeOnly, "pruner": writeDelete})
	}
	unconditional := func(w http.ResponseWriter, r *http.Request, _ int, next http.Handler) { // a store that does not know the header
		server.PutWithout(w, r, next, "If-None-Match")
	}
	unlocked := func(w http.ResponseWriter, r *http.Request, _ int, next http.Handler) { // one that takes a lock, and keeps none
		server.PutWithout(w, r, next, "lock")
	}
	for _, test := range []struct {
		name   string
		bucket string
		who    s3test.Credential
		change func(*Target)
		fault  s3test.Fault
		want   TargetCheck
		probe  bool // remains
		err    error
	}{
		{"root", testBucket, server.Root, nil, nil, TargetCheck{Exclusive: true, Versions: true, Lock: LockNone, CanRead: true, CanList: true, CanDelete: true}, false, nil},
		{"root, lock", testBucket, server.Root, retained, nil, TargetCheck{Exclusive: true, Versions: true, Lock: LockProven, CanRead: true, CanList: true, CanDelete: true}, true, nil},
		{"writer", testBucket, writer, nil, nil, TargetCheck{Exclusive: true, Versions: true, Lock: LockNone}, true, nil},
		{"writer, lock", testBucket, writer, retained, nil, TargetCheck{Exclusive: true, Versions: true, Lock: LockNotProven}, true, nil},
		{"writer, no versions", "plain", writer, nil, nil, TargetCheck{Exclusive: true, Lock: LockNone}, true, nil},
		{"pruner, lock", testBucket, pruner, retained, nil, TargetCheck{Exclusive: true, Versions: true, Lock: LockProven, CanDelete: true}, true, nil},
		{"replaces", testBucket, pruner, nil, unconditional, TargetCheck{Versions: true, Lock: LockNone, CanDelete: true}, false, ErrUnsupported},
		{"replaces, known", testBucket, pruner, func(t *Target) { t.NoConditional = true }, unconditional, TargetCheck{Versions: true, Lock: LockNone, CanDelete: true}, false, nil},
		{"lock not kept", testBucket, pruner, retained, unlocked, TargetCheck{Exclusive: true, Versions: true, Lock: LockBroken, CanDelete: true}, false, ErrUnsupported},
		{"lock not kept, writer", testBucket, writer, retained, unlocked, TargetCheck{Exclusive: true, Versions: true, Lock: LockNotProven}, true, nil},
		{"locks by default", "locks-by-default", server.Root, nil, nil, TargetCheck{Exclusive: true, Versions: true, Lock: LockNone, DefaultRetention: "COMPLIANCE 1 days", CanRead: true, CanList: true}, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy.Strike(test.fault)
			target := bucketTarget(proxy.URL, test.who)
			target.URL = "s3://" + test.bucket + "/fleet"
			if test.change != nil {
				test.change(&target)
			}
			before := probesIn(server.Keys(t, test.bucket))
			asked := ""
			got, err := CheckTarget(t.Context(), openTestStore(t, target), func(_ context.Context, retention string) error {
				asked = retention
				return nil
			})
			if !errors.Is(err, test.err) || asked != test.want.DefaultRetention {
				t.Errorf("asked about %q, %v", asked, err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(TargetCheck{}, "Probes")); diff != "" || (len(got.Probes) > 0) != test.probe {
				t.Errorf("probes %q, %s", got.Probes, diff)
			}
			proxy.Strike(nil)
			if left := probesIn(server.Keys(t, test.bucket)) - before; left != len(got.Probes) {
				t.Errorf("%d probes are left, and %q named", left, got.Probes)
			}
			root := bucketTarget(server.URL, server.Root)
			root.URL = target.URL
			if list := objects(t, openTestStore(t, root)); len(list) != 0 {
				t.Errorf("a probe is listed: %+v", list)
			}
		})
	}
	declined := errors.New("declined")
	before := len(server.Keys(t, "locks-by-default"))
	target := bucketTarget(server.URL, server.Root)
	target.URL = "s3://locks-by-default"
	_, err := CheckTarget(t.Context(), openTestStore(t, target), func(context.Context, string) error { return declined })
	if after := len(server.Keys(t, "locks-by-default")); !errors.Is(err, declined) || after != before {
		t.Errorf("%d objects, then %d, %v", before, after, err)
	}
}

func probesIn(keys []string) (count int) {
	for _, key := range keys {
		if strings.Contains(key, "/rbee-vault-probe-") {
			count++
		}
	}
	return count
}

func retained(t *Target) { t.Retain = 30 * 24 * time.Hour }

// TestCheckedProbeIsLockedBriefly: a target's retention is not that of the probe.
func TestCheckedProbeIsLockedBriefly(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	target := bucketTarget(proxy.URL, server.Root)
	retained(&target)
	if _, err := CheckTarget(t.Context(), openTestStore(t, target), nil); err != nil {
		t.Fatal(err)
	}
	locks := 0
	for _, r := range proxy.Requests() {
		if r.Method != http.MethodPut || r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date") == "" {
			continue
		}
		locks++
		until, err := time.Parse(time.RFC3339, r.Header.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if err != nil || time.Until(until) > probeLock {
			t.Errorf("locked until %v, %v", until, err)
		}
	}
	if locks == 0 {
		t.Error("no probe was locked")
	}
}

// TestCheckLostAnswer: a lock is neither proven nor broken by a probe whose version is not known.
func TestCheckLostAnswer(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	for name, tt := range map[string]struct {
		lost   func(put int) bool // the answer to this PUT request
		probes int                // are named: the one with the lock, and those whose answer was lost
		lock   LockState
		err    error
	}{
		"of the locked probe": {func(put int) bool { return put == 0 }, 2, LockProven, nil},
		"of the free probe":   {func(put int) bool { return put == 2 }, 2, LockProven, nil},
		"always":              {func(put int) bool { return put%2 == 0 }, 3, LockNone, ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			puts := 0
			proxy.Strike(func(w http.ResponseWriter, r *http.Request, _ int, next http.Handler) {
				if r.Method == http.MethodPut {
					if puts++; tt.lost(puts - 1) {
						s3test.Lost(r, next)
					}
				}
				next.ServeHTTP(w, r)
			})
			target := bucketTarget(proxy.URL, server.Root)
			retained(&target)
			c, err := CheckTarget(t.Context(), openTestStore(t, target), nil)
			if !errors.Is(err, tt.err) || c.Lock != tt.lock || len(c.Probes) != tt.probes {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}

// TestCheckDirectory: a directory is checked too, and nothing stays there.
func TestCheckDirectory(t *testing.T) {
	s := dirStore{t.TempDir()}
	c, err := CheckTarget(t.Context(), s, nil)
	if err != nil || !c.Exclusive || len(c.Probes) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := CheckTarget(t.Context(), dirStore{s.dir + "/missing"}, nil); err == nil {
		t.Error("a directory that is missing")
	}
}
