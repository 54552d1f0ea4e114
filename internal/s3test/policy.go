package s3test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

type statement struct {
	Effect    string
	Principal principal
	Action    string
	Resource  string
}

type principal struct{ AWS []string }

// ofBucket reports whether an action is done with the bucket, not with its objects.
func ofBucket(action string) bool {
	return strings.HasPrefix(action, "s3:List") || strings.HasPrefix(action, "s3:GetBucket")
}

func encode(t testing.TB, statements []statement) string {
	t.Helper()
	data, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", statements})
	return string(must(t, data, err))
}

// Version makes a bucket keep versions.
func (s *Server) Version(t testing.TB, bucket string) {
	t.Helper()
	_, err := s.Client(s.Root).PutBucketVersioning(context.Background(), &s3.PutBucketVersioningInput{
		Bucket:                  &bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	must(t, 0, err)
}

// LockByDefault makes a bucket lock each new object for some days.
func (s *Server) LockByDefault(t testing.TB, bucket string, days int32) {
	t.Helper()
	_, err := s.Client(s.Root).PutObjectLockConfiguration(context.Background(), &s3.PutObjectLockConfigurationInput{
		Bucket: &bucket,
		ObjectLockConfiguration: &types.ObjectLockConfiguration{
			ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			Rule:              &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Days: &days}},
		},
	})
	must(t, 0, err)
}

// Hide writes a delete marker over an object, as a deletion without a version does.
func (s *Server) Hide(t testing.TB, bucket, key string) {
	t.Helper()
	_, err := s.Client(s.Root).DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	must(t, 0, err)
}

// Overwrite writes another version over an object.
func (s *Server) Overwrite(t testing.TB, bucket, key, content string) {
	t.Helper()
	_, err := s.Client(s.Root).PutObject(context.Background(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(content)})
	must(t, 0, err)
}

// Keys lists the keys of a bucket's versions, with each delete marker as "KEY (marker)".
func (s *Server) Keys(t testing.TB, bucket string) []string {
	t.Helper()
	out, err := s.Client(s.Root).ListObjectVersions(context.Background(), &s3.ListObjectVersionsInput{Bucket: &bucket})
	must(t, 0, err)
	var keys []string
	for _, v := range out.Versions {
		keys = append(keys, aws.ToString(v.Key))
	}
	for _, m := range out.DeleteMarkers {
		keys = append(keys, aws.ToString(m.Key)+" (marker)")
	}
	return keys
}

// PlainBucket makes a bucket that keeps no versions.
func (s *Server) PlainBucket(t testing.TB, name string) {
	t.Helper()
	_, err := s.Client(s.Root).CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &name})
	must(t, 0, err)
}

// Place puts a file where the server has its objects.
func (s *Server) Place(t testing.TB, bucket, key, content string) {
	t.Helper()
	path := filepath.Join(s.Dir, bucket, filepath.FromSlash(key))
	must(t, 0, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, 0, os.WriteFile(path, []byte(content), 0o600))
}
