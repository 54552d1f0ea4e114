// Package s3test runs a real S3 server, versitygw, on the loopback address. Its buckets keep
// versions, and locks hold.
package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/gofrs/flock"
)

// version of versitygw. It is no dependency of this module: it is built apart, once on a
// machine.
const version = "v1.8.0"

// Region is that of a server, if it is started in no other.
const Region = "us-east-1"

// Server is a versitygw whose data ends with the test.
type Server struct {
	URL  string // the endpoint
	Root Credential
	Dir  string // a bucket is a directory in it

	region  string
	program string
	log     *bytes.Buffer
}

// Credential is a user's.
type Credential struct{ AccessKey, Secret string }

// Start starts a server. It ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, Region)
}

// StartIn is Start in another region.
func StartIn(t testing.TB, region string) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{
		Root:    Credential{"root-access-key", "root-secret-key-planted"},
		Dir:     filepath.Join(dir, "buckets"),
		region:  region,
		program: build(t),
		log:     new(bytes.Buffer),
	}
	for _, name := range []string{"buckets", "versions", "users"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for attempt := 1; !s.start(t, dir); attempt++ {
		if attempt == 3 {
			t.Fatalf("versitygw ended:\n%s", s.log)
		}
	}
	return s
}

// start starts the program at a free port. It is false if the program has ended: most likely
// somebody else got the port.
func (s *Server) start(t testing.TB, dir string) bool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s.URL = "http://" + addr
	alive := "/alive-" + rand.Text() // to which no other server at that port answers
	cmd := exec.Command(s.program, "--port", addr, "--region", s.region, "--iam-dir", filepath.Join(dir, "users"), "--iam-cache-disable", "--quiet", "--keep-alive",
		"--health", alive, "posix", "--versioning-dir", filepath.Join(dir, "versions"), s.Dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.Root.AccessKey, "ROOT_SECRET_KEY="+s.Root.Secret)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	client := http.Client{Timeout: time.Second}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := client.Get(s.URL + alive)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return true
			}
			err = errors.New(answer.Status)
		}
		select {
		case <-ended:
			return false
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("versitygw does not listen: %v", err)
		}
	}
}

var building sync.Mutex

// build returns the program, and builds it where this machine has none yet.
func build(t testing.TB) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "rbee-vault-test", "versitygw-"+version)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock := flock.New(filepath.Join(dir, ".lock")) // other packages' tests run at once
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	program := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	cmd := exec.Command("go", "install", "github.com/versity/versitygw/cmd/versitygw@"+version)
	cmd.Dir = dir // in no module
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build versitygw: %v\n%s", err, out)
	}
	return program
}

// Client returns a client of the server.
func (s *Server) Client(c Credential) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.URL),
		Region:       s.region,
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(c.AccessKey, c.Secret, ""),
	})
}

// Bucket makes a bucket whose objects have versions and, with lock, can be locked.
func (s *Server) Bucket(t testing.TB, name string, lock bool) {
	t.Helper()
	ctx := context.Background()
	client := s.Client(s.Root)
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name, ObjectLockEnabledForBucket: &lock}); err != nil {
		t.Fatal(err)
	}
	if !lock {
		s.Version(t, name)
	}
}

// User makes a user, who may do nothing until a policy lets him.
func (s *Server) User(t testing.TB, name string) Credential {
	t.Helper()
	c := Credential{name, name + "-secret-planted"}
	cmd := exec.Command(s.program, "admin", "--endpoint-url", s.URL, "create-user", "--access", c.AccessKey, "--secret", c.Secret, "--role", "user")
	cmd.Env = append(os.Environ(), "ADMIN_ACCESS_KEY="+s.Root.AccessKey, "ADMIN_SECRET_KEY="+s.Root.Secret)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a user: %v\n%s", err, out)
	}
	return c
}

// Allow lets users do things with a bucket and what it holds. It replaces what was allowed
// before. An action is as in "s3:PutObject".
func (s *Server) Allow(t testing.TB, bucket string, actions map[string][]string) {
	t.Helper()
	var statements []statement
	for user, list := range actions {
		for _, action := range list {
			resource := "arn:aws:s3:::" + bucket
			if !ofBucket(action) {
				resource += "/*"
			}
			statements = append(statements, statement{"Allow", principal{[]string{user}}, action, resource})
		}
	}
	policy := encode(t, statements)
	if _, err := s.Client(s.Root).PutBucketPolicy(context.Background(), &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &policy}); err != nil {
		t.Fatalf("policy %s: %v", policy, err)
	}
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("s3test: %w", err))
	}
	return v
}
