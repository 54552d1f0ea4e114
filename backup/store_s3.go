package backup

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

const (
	// storePatience is how long a server may neither take nor send a byte. What the kernel
	// has taken over of an upload, some megabytes, may be on its way for so long.
	storePatience = 2 * time.Minute
	// storeAttempts is how often a request is made.
	storeAttempts = 4
	// An object may take this long as a whole, and a second more for each storeRate bytes.
	storeTime = 10 * time.Minute
	storeRate = 64 << 10
)

// s3Store is a prefix in a bucket.
type s3Store struct {
	target         Target // without its secret
	bucket, prefix string
	client         *s3.Client
}

// openS3 returns the store of a bucket. The credential is the target's, or the machine's
// own as the AWS tools find it: environment, profile, the instance's role.
func openS3(ctx context.Context, t Target, patience time.Duration) (*s3Store, error) {
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.DialContext = dialPatiently(tr.DialContext, patience) })
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(transport),
		config.WithLogger(logging.Nop{}),
		// Checksums of other kinds are unknown to some stores.
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	if t.Region != "" {
		options = append(options, config.WithRegion(t.Region))
	}
	if t.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(t.Profile))
	}
	if t.AccessKey != "" {
		options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(t.AccessKey, string(t.Secret), "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if _, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return nil, fmt.Errorf("%w: this machine has no profile %q in its AWS configuration", registry.ErrNotFound, t.Profile)
	}
	if err != nil { // its text may quote a line of the file
		return nil, fmt.Errorf("%w: the AWS configuration of this machine cannot be read", vault.ErrInvalid)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	c, ok := cfg.HTTPClient.(*awshttp.BuildableClient) // by now with the machine's own authorities
	if !ok {
		return nil, errors.New("the AWS configuration has replaced the HTTP client")
	}
	cfg.HTTPClient = &http.Client{Transport: onlyTLS{c.GetTransport()}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	cfg.Retryer = func() aws.Retryer { return newStoreRetryer() }
	s := &s3Store{target: t}
	s.target.Secret = nil
	s.bucket, s.prefix, _ = t.bucket()
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		if t.Endpoint != "" {
			o.BaseEndpoint = &t.Endpoint
		}
		o.UsePathStyle = o.BaseEndpoint != nil
		// A wrong clock would lock objects for too long or too short: it is an error.
		o.DisableClockSkewCorrection = true
	})
	return s, nil
}

// Put implements [Store].
func (s *s3Store) Put(ctx context.Context, name string, body *io.SectionReader, sum [sha256.Size]byte) (Copy, error) {
	c, _, err := s.put(ctx, name, body, sum, s.target.Retain)
	return c, err
}

// put writes an object by one request, which is repeated where its outcome is not clear. It
// reports whether the answer to the request that wrote it was lost: then the object's
// version is not known.
func (s *s3Store) put(ctx context.Context, name string, body *io.SectionReader, sum [sha256.Size]byte, retain time.Duration) (c Copy, lost bool, err error) {
	if err := checkObjectName(name); err != nil {
		return Copy{}, false, err
	}
	limited, cancel := context.WithTimeout(ctx, storeTime+time.Duration(body.Size()/storeRate)*time.Second)
	defer cancel()
	in := &s3.PutObjectInput{
		Bucket:        &s.bucket,
		Key:           aws.String(s.prefix + name),
		Body:          body,
		ContentLength: aws.Int64(body.Size()),
		ContentType:   aws.String("application/octet-stream"),
	}
	if !s.target.NoConditional {
		in.IfNoneMatch = aws.String("*")
	}
	if !s.target.NoChecksum {
		in.ChecksumSHA256 = aws.String(base64.StdEncoding.EncodeToString(sum[:]))
	}
	if retain > 0 {
		c.LockedUntil = time.Now().Add(retain).UTC().Truncate(time.Second)
		in.ObjectLockMode, in.ObjectLockRetainUntilDate = types.ObjectLockModeCompliance, &c.LockedUntil
	}
	attempts := newStoreRetryer()
	out, err := s.client.PutObject(limited, in, func(o *s3.Options) { o.Retryer = attempts })
	switch {
	case status(err) == http.StatusPreconditionFailed && attempts.unclear:
		// An attempt of ours wrote it: its random name was recorded before.
		c.Written = time.Now()
		return c, true, nil
	case status(err) == http.StatusPreconditionFailed:
		return Copy{}, false, fmt.Errorf("%q %w", name, ErrExists)
	case err != nil:
		return Copy{}, false, s.explain(ctx, err)
	}
	c.Written, c.Version = time.Now(), versionOf(out.VersionId)
	return c, false, nil
}

// nullVersion is the version of an object that was written while its bucket kept none.
const nullVersion = "null"

// versionOf returns a version, "" for none.
func versionOf(id *string) string {
	if aws.ToString(id) == nullVersion {
		return ""
	}
	return aws.ToString(id)
}

// Objects implements [Store].
func (s *s3Store) Objects(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for v, err := range s.versions(ctx, s.prefix) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			name := strings.TrimPrefix(aws.ToString(v.Key), s.prefix)
			if !IsObjectName(name) {
				continue
			}
			o := Object{Name: name, Version: versionOf(v.VersionId), Size: aws.ToInt64(v.Size), Modified: aws.ToTime(v.LastModified), Hidden: !aws.ToBool(v.IsLatest)}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// versions lists the versions of all keys with a prefix, without delete markers. A store
// that keeps no versions lists its objects.
func (s *s3Store) versions(ctx context.Context, prefix string) iter.Seq2[types.ObjectVersion, error] {
	return func(yield func(types.ObjectVersion, error) bool) {
		pages := s3.NewListObjectVersionsPaginator(s.client, &s3.ListObjectVersionsInput{Bucket: &s.bucket, Prefix: &prefix})
		var last types.ObjectVersion
		for first := true; pages.HasMorePages(); first = false {
			limited, cancel := context.WithTimeout(ctx, storeTime)
			page, err := pages.NextPage(limited)
			cancel()
			if code := status(err); first && (code == http.StatusNotImplemented || code == http.StatusMethodNotAllowed) {
				s.objects(ctx, prefix, yield)
				return
			}
			if err != nil {
				yield(types.ObjectVersion{}, s.explain(ctx, err))
				return
			}
			for _, v := range page.Versions {
				if aws.ToString(v.Key) == aws.ToString(last.Key) && aws.ToString(v.VersionId) == aws.ToString(last.VersionId) {
					continue // some stores begin a page with the end of the one before
				}
				if last = v; !yield(v, nil) {
					return
				}
			}
		}
	}
}

func (s *s3Store) objects(ctx context.Context, prefix string, yield func(types.ObjectVersion, error) bool) {
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		limited, cancel := context.WithTimeout(ctx, storeTime)
		page, err := pages.NextPage(limited)
		cancel()
		if err != nil {
			yield(types.ObjectVersion{}, s.explain(ctx, err))
			return
		}
		for _, o := range page.Contents {
			if !yield(types.ObjectVersion{Key: o.Key, Size: o.Size, LastModified: o.LastModified, IsLatest: aws.Bool(true)}, nil) {
				return
			}
		}
	}
}

// versionsOf returns the ids of an object's versions, the first that was written first. They
// are nil where the store names none.
func (s *s3Store) versionsOf(ctx context.Context, name string) (ids []*string, err error) {
	for v, err := range s.versions(ctx, s.prefix+name) { // the newest first
		if err != nil {
			return nil, err
		}
		if aws.ToString(v.Key) == s.prefix+name {
			ids = append([]*string{v.VersionId}, ids...)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%q in %s: %w", name, s.target.URL, registry.ErrNotFound)
	}
	return ids, nil
}

// Open implements [Store].
func (s *s3Store) Open(ctx context.Context, name, version string) (io.ReadCloser, error) {
	if err := checkObjectName(name); err != nil {
		return nil, err
	}
	d := &download{ctx: ctx, store: s, name: name, version: &version}
	if version == "" {
		ids, err := s.versionsOf(ctx, name)
		switch {
		case errors.Is(err, ErrDenied):
			d.version = nil // a credential that only reads
		case err != nil:
			return nil, err
		default:
			d.version = ids[0]
		}
	}
	if err := d.open(); err != nil {
		return nil, err
	}
	return d, nil
}

// Remove implements [Store].
func (s *s3Store) Remove(ctx context.Context, name, version string) error {
	if err := checkObjectName(name); err != nil {
		return err
	}
	id := &version
	if version == "" {
		// Without its id a delete marker would hide the version, and the object stay.
		ids, err := s.versionsOf(ctx, name)
		if err != nil {
			return err
		}
		if len(ids) > 1 {
			return fmt.Errorf("%w: %q has %d versions in %s, and it is not known which of them is the backup", vault.ErrInvalid, name, len(ids), s.target.URL)
		}
		id = ids[0]
	}
	return s.remove(ctx, name, id)
}

// remove deletes a version. Without one, it deletes what a store without versions has, and
// hides what another store has.
func (s *s3Store) remove(ctx context.Context, name string, version *string) error {
	key := s.prefix + name
	limited, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	_, err := s.client.DeleteObject(limited, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key, VersionId: version})
	if err == nil {
		return nil
	}
	if code := status(err); code == http.StatusForbidden || code == http.StatusBadRequest {
		held, e := s.client.GetObjectRetention(limited, &s3.GetObjectRetentionInput{Bucket: &s.bucket, Key: &key, VersionId: version})
		if e == nil && held.Retention != nil && aws.ToTime(held.Retention.RetainUntilDate).After(time.Now()) {
			return fmt.Errorf("%q %w until %s", name, ErrLocked, held.Retention.RetainUntilDate.UTC().Format(time.RFC3339))
		}
		if saysLocked(err) {
			return fmt.Errorf("%q %w", name, ErrLocked)
		}
	}
	return s.explain(ctx, err)
}

// download reads an object. Where the connection breaks, it goes on with the rest of the
// same version.
type download struct {
	ctx     context.Context
	store   *s3Store
	name    string
	version *string

	body     io.ReadCloser
	etag     *string
	at, size int64
	deadline time.Time
	retries  int
}

// open asks for the object from the byte on that is next.
func (d *download) open() error {
	in := &s3.GetObjectInput{Bucket: &d.store.bucket, Key: aws.String(d.store.prefix + d.name), VersionId: d.version}
	if d.at > 0 {
		in.Range, in.IfMatch = aws.String(fmt.Sprintf("bytes=%d-", d.at)), d.etag
	}
	out, err := d.store.client.GetObject(d.ctx, in)
	if err != nil {
		return d.store.explain(d.ctx, err)
	}
	d.body = out.Body
	if d.at > 0 && !strings.HasPrefix(aws.ToString(out.ContentRange), fmt.Sprintf("bytes %d-", d.at)) {
		d.body.Close()
		return fmt.Errorf("%w: %s cannot go on with a download in the middle", ErrUnsupported, d.store.where())
	}
	if d.at == 0 {
		d.etag, d.size = out.ETag, aws.ToInt64(out.ContentLength)
		d.deadline = time.Now().Add(storeTime + time.Duration(d.size/storeRate)*time.Second)
	}
	return nil
}

// Read implements [io.Reader].
func (d *download) Read(p []byte) (int, error) {
	for {
		n, err := d.body.Read(p)
		d.at += int64(n)
		switch {
		case err == nil && time.Now().After(d.deadline):
			return n, fmt.Errorf("%w: %s sends too slowly", ErrUnreachable, d.store.where())
		case err == nil, errors.Is(err, io.EOF): // io.ErrUnexpectedEOF is another: the body is short
			return n, err
		case d.ctx.Err() != nil:
			return n, d.ctx.Err()
		case d.retries == storeAttempts-1:
			return n, fmt.Errorf("%w: the connection to %s broke after %d of %d bytes", ErrUnreachable, d.store.where(), d.at, d.size)
		}
		d.retries++
		d.body.Close()
		d.body = http.NoBody
		if err := d.open(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// Close implements [io.Closer].
func (d *download) Close() error { return d.body.Close() }

// onlyTLS refuses requests without TLS, but for those to this machine itself.
type onlyTLS struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t onlyTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, errNoTLS
	}
	return t.RoundTripper.RoundTrip(r)
}

// dialPatiently returns a dial whose connections end when nothing moves on them.
func dialPatiently(dial func(context.Context, string, string) (net.Conn, error), patience time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return patientConn{c, patience}, nil
	}
}

// patientConn ends when neither direction moves: a long upload is no reason to stop
// waiting for its answer.
type patientConn struct {
	net.Conn
	patience time.Duration
}

// Read implements [net.Conn].
func (c patientConn) Read(p []byte) (int, error) {
	c.SetDeadline(time.Now().Add(c.patience))
	return c.Conn.Read(p)
}

// Write implements [net.Conn].
func (c patientConn) Write(p []byte) (int, error) {
	c.SetDeadline(time.Now().Add(c.patience))
	return c.Conn.Write(p)
}
