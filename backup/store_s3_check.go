package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// check implements checker.
func (s *s3Store) check(ctx context.Context, confirm func(context.Context, string) error) (c TargetCheck, err error) {
	c.Lock, c.DefaultRetention = LockNone, s.defaultRetention(ctx)
	if c.DefaultRetention != "" {
		if err := confirm(ctx, c.DefaultRetention); err != nil {
			return c, err
		}
	}
	var lock time.Duration
	if s.target.Retain > 0 {
		lock = probeLock
	}
	p, err := s.writeTwice(ctx, lock, &c)
	if err != nil {
		return c, err
	}
	c.Exclusive, c.Versions = p.exclusive, p.versions[0] != nil
	if c.CanRead, err = s.canRead(ctx, p.name); err != nil {
		return c, err
	}
	if c.CanList, err = s.canList(ctx); err != nil {
		return c, err
	}
	if err := s.checkDeletion(ctx, p, &c); err != nil {
		return c, err
	}
	switch {
	case c.Lock == LockBroken:
		return c, fmt.Errorf("%w: %s deleted a locked object", ErrUnsupported, s.target.URL)
	case !c.Exclusive && !s.target.NoConditional:
		return c, fmt.Errorf("%w: %s replaces objects, whatever If-None-Match says: an object that is there already could be lost. To use it even so: --no-conditional", ErrUnsupported, s.target.URL)
	}
	return c, nil
}

// probe is an object that a check has written.
type probe struct {
	name      string
	versions  []*string // nil ids where it has none
	exclusive bool
}

// writeProbe writes a probe. One whose version is not known, since the store's answer was lost,
// proves nothing: another one is written.
func (s *s3Store) writeProbe(ctx context.Context, lock time.Duration, c *TargetCheck) (probe, error) {
	for range 3 {
		name := newProbe()
		body, sum := probeBody()
		written, lost, err := s.put(ctx, name, body, sum, lock)
		if err != nil {
			return probe{}, err
		}
		if !lost {
			return probe{name: name, versions: []*string{id(written.Version)}}, nil
		}
		c.Probes = append(c.Probes, name)
	}
	return probe{}, fmt.Errorf("%w: %s takes objects, and its answers are lost", ErrUnreachable, s.target.URL)
}

// writeTwice writes a probe, and tries to write it again.
func (s *s3Store) writeTwice(ctx context.Context, lock time.Duration, c *TargetCheck) (probe, error) {
	p, err := s.writeProbe(ctx, lock, c)
	if err != nil {
		return probe{}, err
	}
	body, sum := probeBody()
	second, lost, err := s.put(ctx, p.name, body, sum, lock)
	switch {
	case errors.Is(err, ErrExists), err == nil && lost: // lost: the answer to the last attempt was a refusal too
		p.exclusive = true
	case err != nil:
		return p, err
	default:
		p.versions = append(p.versions, id(second.Version))
	}
	return p, nil
}

// checkDeletion tries to delete the probe, and under a lock another one that has none: only
// a credential that may delete can prove the lock.
func (s *s3Store) checkDeletion(ctx context.Context, p probe, c *TargetCheck) error {
	if s.target.Retain == 0 {
		gone, err := s.tryRemove(ctx, p)
		if c.CanDelete = gone; !gone {
			c.Probes = append(c.Probes, p.name)
		}
		return err
	}
	c.Lock = LockNotProven
	if c.DefaultRetention == "" {
		free, err := s.writeProbe(ctx, 0, c)
		if err != nil {
			return err
		}
		if c.CanDelete, err = s.tryRemove(ctx, free); err != nil {
			return err
		}
		if !c.CanDelete {
			c.Probes = append(c.Probes, free.name)
		}
	}
	gone, err := s.tryRemove(ctx, p)
	switch {
	case err != nil:
		return err
	case gone:
		c.Lock, c.CanDelete = LockBroken, true
		return nil
	case c.CanDelete:
		c.Lock = LockProven
	}
	c.Probes = append(c.Probes, p.name)
	return nil
}

// tryRemove deletes every version of a probe, by its id: without the id a locked object is
// hidden, which proves nothing. It reports whether that was allowed.
func (s *s3Store) tryRemove(ctx context.Context, p probe) (gone bool, err error) {
	for _, version := range p.versions {
		err := s.remove(ctx, p.name, version)
		if errors.Is(err, ErrDenied) || errors.Is(err, ErrLocked) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

func (s *s3Store) canRead(ctx context.Context, name string) (bool, error) {
	_, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + name)})
	return s.allowed(ctx, err)
}

func (s *s3Store) canList(ctx context.Context) (bool, error) {
	_, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &s.prefix, MaxKeys: aws.Int32(1)})
	return s.allowed(ctx, err)
}

// allowed reports whether a request was not denied.
func (s *s3Store) allowed(ctx context.Context, err error) (bool, error) {
	if err == nil {
		return true, nil
	}
	if err = s.explain(ctx, err); errors.Is(err, ErrDenied) || errors.Is(err, registry.ErrNotFound) {
		return false, nil
	}
	return false, err
}

// defaultRetention says how the bucket locks each new object; "" where it does not, or this
// credential may not know.
func (s *s3Store) defaultRetention(ctx context.Context) string {
	out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.bucket})
	if err != nil || out.ObjectLockConfiguration == nil || out.ObjectLockConfiguration.Rule == nil || out.ObjectLockConfiguration.Rule.DefaultRetention == nil {
		return ""
	}
	r := out.ObjectLockConfiguration.Rule.DefaultRetention
	if years := aws.ToInt32(r.Years); years > 0 {
		return fmt.Sprintf("%s %d years", r.Mode, years)
	}
	return fmt.Sprintf("%s %d days", r.Mode, aws.ToInt32(r.Days))
}

// id returns the id of a version, nil for none.
func id(version string) *string {
	if version == "" {
		return nil
	}
	return &version
}
