package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/s3test"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// refusing is a fault that answers the first requests with an error of S3.
func refusing(requests, status int, code string) s3test.Fault {
	return func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
		if n < requests {
			s3test.Refuse(w, status, code)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// always is more requests than are ever made.
const always = 1 << 30

// TestS3PutFaults: what goes wrong with a request for a while is survived, and the object is
// written once. What stays wrong is said.
func TestS3PutFaults(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	lost := func(requests int) s3test.Fault {
		return func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
			if n < requests {
				s3test.Lost(r, next)
			}
			next.ServeHTTP(w, r)
		}
	}
	late := func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) { // took effect, and says 500
		if n == 0 {
			next.ServeHTTP(httptest.NewRecorder(), r)
			s3test.Refuse(w, http.StatusInternalServerError, "InternalError")
			return
		}
		next.ServeHTTP(w, r)
	}
	unread := func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) { // cut in the body
		if n == 0 {
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	}
	altered := func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
		body, _ := io.ReadAll(r.Body)
		body[len(body)/2] ^= 1
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	}
	for _, test := range []struct {
		name  string
		fault s3test.Fault
		want  error
		says  string
	}{
		{"none", nil, nil, ""},
		{"answer lost", lost(1), nil, ""},
		{"every answer lost", lost(always), ErrUnreachable, "broke"},
		{"500 after it took effect", late, nil, ""},
		{"500", refusing(2, 500, "InternalError"), nil, ""},
		{"503", refusing(2, 503, "SlowDown"), nil, ""},
		{"cut in the body", unread, nil, ""},
		{"409", refusing(2, 409, "ConditionalRequestConflict"), nil, ""},
		{"409 always", refusing(always, 409, "ConditionalRequestConflict"), ErrUnreachable, "busy"},
		{"412 after 409", func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
			s3test.Refuse(w, []int{409, 412, 412, 412}[n], []string{"ConditionalRequestConflict", "PreconditionFailed", "", ""}[n])
		}, ErrExists, ""},
		{"501", refusing(always, 501, "NotImplemented"), ErrUnsupported, "--no-conditional"},
		{"500 always", refusing(always, 500, "InternalError"), ErrUnreachable, "disk"},
		{"503 always", refusing(always, 503, "SlowDown"), ErrUnreachable, "busy"},
		{"507", refusing(always, 507, "InsufficientStorage"), ErrStoreFull, "space"},
		{"403", refusing(always, 403, "AccessDenied"), ErrDenied, "not allowed"},
		{"expired", refusing(always, 400, "ExpiredToken"), ErrDenied, "expired"},
		{"wrong clock", refusing(always, 403, "RequestTimeTooSkewed"), ErrDenied, "clock"},
		{"redirect", func(w http.ResponseWriter, r *http.Request, _ int, _ http.Handler) {
			w.Header().Set("x-amz-bucket-region", "eu-central-1")
			w.Header().Set("Location", "http://example.invalid/")
			s3test.Refuse(w, 307, "TemporaryRedirect")
		}, vault.ErrInvalid, "--region eu-central-1"},
		{"altered on the way", altered, vault.ErrDamaged, "other bytes"},
		{"not S3", func(w http.ResponseWriter, r *http.Request, _ int, _ http.Handler) { http.Error(w, "planted", 404) }, registry.ErrNotFound, "no S3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy.Strike(test.fault)
			s := openTestStore(t, bucketTarget(proxy.URL, server.Root))
			name, content := objectCalled(1), strings.Repeat("content ", 10000)
			c, err := putText(t.Context(), s, name, content)
			if !errors.Is(err, test.want) || err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "planted")) {
				t.Fatal(err)
			}
			if (err == nil) != c.There() {
				t.Errorf("%+v, %v", c, err)
			}
			proxy.Strike(nil)
			count := 0
			for _, o := range objects(t, s) {
				if o.Name == name {
					count++
				}
			}
			if err == nil && (count != 1 || readText(t, s, name, c.Version) != content) {
				t.Errorf("%d versions", count)
			}
			if test.name == "altered on the way" && count != 0 {
				t.Error("altered bytes were written")
			}
		})
	}
}

// TestS3RealRefusals: what a real server says to a wrong credential, bucket, signature or
// region, and to a lock that the bucket cannot keep.
func TestS3RealRefusals(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	server.PlainBucket(t, "plain")
	stranger := server.User(t, "stranger")
	impostor := httptest.NewTLSServer(http.NotFoundHandler())
	defer impostor.Close()
	impostor.Config.ErrorLog = log.New(io.Discard, "", 0)
	for _, test := range []struct {
		name   string
		change func(*Target)
		want   error
		says   string
	}{
		{"access key", func(t *Target) { t.AccessKey = "nobody" }, ErrDenied, "does not know the access key"},
		{"secret", func(t *Target) { t.Secret = []byte("wrong-planted") }, ErrDenied, "secret"},
		{"rights", func(t *Target) { t.AccessKey, t.Secret = stranger.AccessKey, []byte(stranger.Secret) }, ErrDenied, "not allowed"},
		{"bucket", func(t *Target) { t.URL = "s3://no-such-bucket" }, registry.ErrNotFound, "bucket"},
		{"region", func(t *Target) { t.Region = "eu-central-1" }, vault.ErrInvalid, "region"},
		{"no lock", func(t *Target) { t.URL, t.Retain = "s3://plain", time.Hour }, ErrUnsupported, "object lock"},
		{"refused", func(t *Target) { t.Endpoint = "http://127.0.0.1:1" }, ErrUnreachable, "refused"},
		{"no address", func(t *Target) { t.Endpoint = "https://s3.invalid" }, ErrUnreachable, "network"},
		{"certificate", func(t *Target) { t.Endpoint = impostor.URL }, ErrDenied, "certificate"},
		{"no credential", func(t *Target) { t.AccessKey, t.Secret = "", nil }, ErrDenied, "no usable credential"},
		{"no profile", func(t *Target) { t.AccessKey, t.Secret, t.Profile = "", nil, "backup" }, registry.ErrNotFound, `"backup"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			target := bucketTarget(server.URL, server.Root)
			test.change(&target)
			s, err := OpenStore(t.Context(), target)
			if err == nil {
				_, err = putText(t.Context(), s, objectCalled(1), "content")
			}
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "planted") {
				t.Error(err)
			}
		})
	}
}

// TestS3WrongClock: a server refuses a clock that is wrong by an hour, and no object is
// locked by such a clock.
func TestS3WrongClock(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	proxy.Strike(func(w http.ResponseWriter, r *http.Request, _ int, next http.Handler) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		s3test.Refuse(w, 403, "RequestTimeTooSkewed")
	})
	target := bucketTarget(proxy.URL, server.Root)
	target.Retain = time.Hour
	s := openTestStore(t, target)
	for range 2 { // the client must not correct the clock by itself
		if _, err := putText(t.Context(), s, objectCalled(1), "content"); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "clock") {
			t.Error(err)
		}
	}
	for i, r := range proxy.Requests() {
		if sent, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date")); err != nil || time.Until(sent) > time.Minute {
			t.Errorf("request %d has the date %v, %v", i, sent, err)
		}
	}
}

// TestS3Silence: a server that is silent, or takes nothing, is given up. So is any server
// once the context ends.
func TestS3Silence(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	release := make(chan struct{})
	defer close(release)
	proxy.Strike(func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
		<-release
	})
	s, err := openS3(t.Context(), bucketTarget(proxy.URL, server.Root), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 8<<20) // more than the buffers between hold
	if _, err := putText(t.Context(), s, objectCalled(1), large); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "in time") {
		t.Error(err)
	}
	if n := len(proxy.Requests()); n != storeAttempts {
		t.Errorf("%d attempts", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	proxy.Strike(func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
		cancel()
		<-release
	})
	if _, err := putText(ctx, openTestStore(t, bucketTarget(proxy.URL, server.Root)), objectCalled(1), "content"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestPatientConn: a connection on which one direction moves is kept, though the other
// waits for longer than the patience.
func TestPatientConn(t *testing.T) {
	const patience = 3 * time.Second
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := patientConn{ours, patience}
	answer := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		answer <- err
	}()
	begun := time.Now()
	for time.Since(begun) < 2*patience { // a slow upload
		go func() {
			time.Sleep(patience / 10)
			theirs.Read(make([]byte, 1))
		}()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	theirs.Write([]byte("y"))
	if err := <-answer; err != nil {
		t.Errorf("the answer to a slow upload: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
}

// TestS3DownloadFaults: a download that breaks goes on with the same version, and what is
// cut off too often, or short, is an error.
func TestS3DownloadFaults(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, testBucket, true)
	proxy := server.Proxy(t)
	s := openTestStore(t, bucketTarget(proxy.URL, server.Root))
	content := make([]byte, 300_000)
	rand.Read(content)
	name := objectCalled(1)
	c, err := s.Put(t.Context(), name, io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))), sha256.Sum256(content))
	if err != nil {
		t.Fatal(err)
	}
	// cut lets so many bytes of each of the first answers pass.
	cut := func(answers, bytes int) s3test.Fault {
		return func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
			if n >= answers {
				next.ServeHTTP(w, r)
				return
			}
			whole := httptest.NewRecorder()
			next.ServeHTTP(whole, r)
			for name, values := range whole.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(whole.Code)
			w.Write(whole.Body.Bytes()[:min(bytes, whole.Body.Len())])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	for _, test := range []struct {
		name  string
		fault s3test.Fault
		want  error
	}{
		{"whole", nil, nil},
		{"cut at once", cut(1, 0), nil},
		{"cut in the middle", cut(1, 100_001), nil},
		{"cut thrice", cut(3, 64_000), nil},
		{"cut before the last byte", cut(1, 299_999), nil},
		{"cut for ever", cut(always, 10), ErrUnreachable},
		{"500 in between", func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
			if n == 1 {
				s3test.Refuse(w, 500, "InternalError")
				return
			}
			cut(1, 1000)(w, r, n, next)
		}, nil},
		{"removed in between", func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
			if n > 0 {
				s3test.Refuse(w, 404, "NoSuchVersion")
				return
			}
			cut(1, 1000)(w, r, n, next)
		}, registry.ErrNotFound},
		{"ranges ignored", func(w http.ResponseWriter, r *http.Request, n int, next http.Handler) {
			if n > 0 {
				w.Write(content)
				return
			}
			cut(1, 1000)(w, r, n, next)
		}, ErrUnsupported},
		{"expired", refusing(always, 400, "ExpiredToken"), ErrDenied},
		{"redirect", func(w http.ResponseWriter, r *http.Request, _ int, _ http.Handler) {
			w.Header().Set("Location", server.URL+r.URL.RequestURI()) // it is not followed
			s3test.Refuse(w, 307, "TemporaryRedirect")
		}, vault.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy.Strike(test.fault)
			var got []byte
			r, err := s.Open(t.Context(), name, c.Version)
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if !errors.Is(err, test.want) || err == nil && !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			for _, r := range proxy.Requests() {
				if r.URL.Query().Get("versionId") != c.Version {
					t.Errorf("asks for %s", r.URL)
				}
			}
		})
	}
}
