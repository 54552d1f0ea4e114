package backup

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Target is a place where backups are written: a directory, or a prefix in a bucket.
type Target struct {
	Name string
	URL  string // dir:/PATH, file:///PATH or s3://BUCKET/PREFIX

	// Of a bucket. Without an endpoint it is Amazon's, or the one that $AWS_ENDPOINT_URL names.
	Endpoint  string // https://HOST:PORT; http:// for this machine alone
	Region    string
	Profile   string // of the machine's own credentials; "": the usual ones
	AccessKey string // "": the machine's own credentials
	Secret    []byte // of AccessKey; sealed in the vault. The caller wipes it.

	// Retain locks each new object for so long. Zero: no lock.
	Retain time.Duration
	// NoConditional: the store does not know If-None-Match, so an object could be replaced.
	NoConditional bool
	// NoChecksum: the store does not know a SHA-256 checksum. It excludes Retain.
	NoChecksum bool

	Created time.Time
}

// targetJSON is a target in a backup, its secret included.
type targetJSON struct {
	Name        string  `json:"name"`
	URL         string  `json:"url"`
	Endpoint    *string `json:"endpoint"`
	Region      *string `json:"region"`
	Profile     *string `json:"profile"`
	AccessKey   *string `json:"access_key"`
	Secret      *string `json:"secret"`
	Retain      int64   `json:"retain_seconds"`
	Conditional bool    `json:"conditional"`
	Checksum    bool    `json:"checksum"`
	Created     string  `json:"created"`
}

func (t Target) json() targetJSON {
	return targetJSON{
		Name:        t.Name,
		URL:         t.URL,
		Endpoint:    wire.Nullable(t.Endpoint),
		Region:      wire.Nullable(t.Region),
		Profile:     wire.Nullable(t.Profile),
		AccessKey:   wire.Nullable(t.AccessKey),
		Secret:      wire.Nullable(string(t.Secret)),
		Retain:      int64(t.Retain / time.Second),
		Conditional: !t.NoConditional,
		Checksum:    !t.NoChecksum,
		Created:     wire.FormatTime(t.Created),
	}
}

// UnmarshalJSON implements [json.Unmarshaler], without fields that it does not know.
func (j *targetJSON) UnmarshalJSON(data []byte) error {
	type plain targetJSON
	return wire.Unmarshal(data, (*plain)(j))
}

func (j targetJSON) target() (Target, error) {
	created, err := wire.ParseTime(j.Created)
	t := Target{
		Name:          j.Name,
		URL:           j.URL,
		Endpoint:      wire.Text(j.Endpoint),
		Region:        wire.Text(j.Region),
		Profile:       wire.Text(j.Profile),
		AccessKey:     wire.Text(j.AccessKey),
		Secret:        []byte(wire.Text(j.Secret)),
		Retain:        time.Duration(j.Retain) * time.Second,
		NoConditional: !j.Conditional,
		NoChecksum:    !j.Checksum,
		Created:       created,
	}
	if err == nil {
		err = t.Validate()
	}
	return t, err
}

var targetName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate checks the target by itself. The error matches [vault.ErrInvalid].
func (t Target) Validate() error {
	if !targetName.MatchString(t.Name) {
		return fmt.Errorf("%w: the target's name %q: use small letters, digits and hyphens", vault.ErrInvalid, t.Name)
	}
	if dir, ok := t.directory(); ok {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%w: the target %s needs an absolute path, as in dir:/srv/backups", vault.ErrInvalid, t.Name)
		}
		if t.Endpoint+t.Region+t.Profile+t.AccessKey != "" || t.Retain != 0 || t.NoConditional || t.NoChecksum {
			return fmt.Errorf("%w: the target %s is a directory: it has no endpoint, region, credentials, retention or headers", vault.ErrInvalid, t.Name)
		}
		return nil
	}
	bucket, prefix, ok := t.bucket()
	switch {
	case !ok || !bucketName.MatchString(bucket) || !cleanPrefix(prefix):
		return fmt.Errorf("%w: the target %s: use dir:/PATH or s3://BUCKET/PREFIX", vault.ErrInvalid, t.Name)
	case t.Retain < 0:
		return fmt.Errorf("%w: the target %s: the retention is negative", vault.ErrInvalid, t.Name)
	case t.NoChecksum && t.Retain > 0:
		return fmt.Errorf("%w: the target %s: an object without a checksum cannot be locked", vault.ErrInvalid, t.Name)
	case t.AccessKey == "" && len(t.Secret) > 0, t.AccessKey != "" && len(t.Secret) == 0:
		return fmt.Errorf("%w: the target %s: an access key and its secret go together", vault.ErrInvalid, t.Name)
	}
	return t.checkEndpoint()
}

var bucketName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{1,62}$`)

// cleanPrefix reports whether a prefix means the same to every store.
func cleanPrefix(prefix string) bool {
	if prefix == "" {
		return true
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(prefix, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return !strings.ContainsFunc(prefix, func(r rune) bool { return wire.Control(r) || r == '?' || r == '\\' })
}

func (t Target) checkEndpoint() error {
	if t.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(t.Endpoint)
	switch { // the address itself is not quoted: it may hold a password
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%w: the target %s: its endpoint is not as in https://s3.example.org", vault.ErrInvalid, t.Name)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fmt.Errorf("%w: the target %s: its endpoint must have TLS (https://)", vault.ErrInvalid, t.Name)
	}
	return nil
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// IsTargetName reports whether a target can have the name.
func IsTargetName(name string) bool { return targetName.MatchString(name) }

// IsObjectName reports whether a backup in a target can have the name.
func IsObjectName(name string) bool {
	return strings.HasSuffix(name, fileSuffix) && checkObjectName(name) == nil
}

// Bucket reports whether the target is in a bucket.
func (t Target) Bucket() bool {
	_, _, ok := t.bucket()
	return ok
}

// directory returns the path of a directory's address.
func (t Target) directory() (path string, ok bool) {
	if path, ok = strings.CutPrefix(t.URL, "dir:"); ok {
		return path, true
	}
	return strings.CutPrefix(t.URL, "file://")
}

// bucket returns the parts of a bucket's address. prefix is empty or ends in a slash.
func (t Target) bucket() (bucket, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(t.URL, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, ok
}
