package main

import (
	"os"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rbee-keeper/rbee-vault/internal/s3test"
)

// servers are the scripts' S3 servers, by their directories.
var servers sync.Map

func theS3(ts *testscript.TestScript) *s3test.Server {
	server, ok := servers.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("no S3 server was started")
	}
	return server.(*s3test.Server)
}

// s3Server is s3 start: starts an S3 server at $S3_URL with the bucket fleet, which locks, and
// the bucket plain, which keeps no versions. The users root, writer, who may only write, and
// reader have the secrets in root.key, writer.key and reader.key. s3 hide KEY puts a delete
// marker over an object of fleet, s3 overwrite KEY another version.
func s3Server(ts *testscript.TestScript, neg bool, args []string) {
	t := ts.Value(theTest{}).(testing.TB)
	switch {
	case len(args) == 1 && args[0] == "start":
		server := s3test.Start(t)
		ts.Setenv("S3_URL", server.URL)
		ts.Setenv("S3_ROOT", server.Root.AccessKey)
		server.Bucket(t, "fleet", true)
		server.PlainBucket(t, "plain")
		users := map[string]s3test.Credential{"root": server.Root, "writer": server.User(t, "writer"), "reader": server.User(t, "reader")}
		for name, c := range users {
			ts.Check(os.WriteFile(ts.MkAbs(name+".key"), []byte(c.Secret+"\n"), 0o600))
		}
		server.Allow(t, "fleet", map[string][]string{
			"writer": {"s3:PutObject", "s3:PutObjectRetention"},
			"reader": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"},
		})
		servers.Store(ts.Getenv("WORK"), server)
	case len(args) == 2 && args[0] == "hide":
		theS3(ts).Hide(t, "fleet", args[1])
	case len(args) == 2 && args[0] == "overwrite":
		theS3(ts).Overwrite(t, "fleet", args[1], "not a backup")
	default:
		ts.Fatalf("usage: s3 start | s3 hide KEY | s3 overwrite KEY")
	}
}
