package backup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// storeRetryer decides what is tried again, and notes whether an attempt failed in a way
// that leaves its effect unknown.
type storeRetryer struct {
	aws.RetryerV2
	unclear bool
}

func newStoreRetryer() *storeRetryer {
	return &storeRetryer{RetryerV2: retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = storeAttempts, 5*time.Second
	})}
}

// IsErrorRetryable implements [aws.Retryer]. It sees the error of each attempt.
func (r *storeRetryer) IsErrorRetryable(err error) bool {
	code := status(err)
	if code == 0 || code >= http.StatusInternalServerError {
		r.unclear = true
	}
	// 409: another request for the same name was under way, and neither is known to win.
	return code == http.StatusConflict && apiCode(err) == "ConditionalRequestConflict" || r.RetryerV2.IsErrorRetryable(err)
}

// status returns the HTTP status of an error; 0: there was no answer.
func status(err error) int {
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	return 0
}

// apiCode returns S3's word for an error.
func apiCode(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// saysLocked reports whether a refusal names the lock. S3 has no code of its own for it.
func saysLocked(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	text := strings.ToLower(api.ErrorCode() + api.ErrorMessage())
	return strings.Contains(text, "object lock") || strings.Contains(text, "objectlocked") || strings.Contains(text, "worm")
}

// errNoTLS is that of a server that must not be talked to.
var errNoTLS = fmt.Errorf("%w: the endpoint has no TLS (https://), and is not this machine", vault.ErrInvalid)

// where names the server.
func (s *s3Store) where() string {
	if s.target.Endpoint != "" {
		return s.target.Endpoint
	}
	return "S3"
}

// explain returns an error of the client in words of ours. Nothing of the client's text
// is kept: it may quote a request.
func (s *s3Store) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errNoTLS) {
		return errNoTLS
	}
	if status(err) == 0 {
		return s.explainNoAnswer(err)
	}
	code, answered := apiCode(err), status(err)
	if code == "InvalidRequest" && s.target.Retain > 0 {
		code = "InvalidBucketState" // some servers have no code of its own for that
	}
	if known, ok := s3Errors[code]; ok {
		return fmt.Errorf("%w: %s (%s): %s", known.err, s.target.URL, code, known.text)
	}
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok && movedStatus(answered, code) {
		region := answer.Response.Header.Get("x-amz-bucket-region")
		return fmt.Errorf("%w: %s is in another region than %q or at another endpoint: %s", vault.ErrInvalid, s.target.URL, s.region(), orUnknown(region))
	}
	known := s3Status(answered)
	return fmt.Errorf("%w: %s (%d %s): %s", known.err, s.target.URL, answered, code, known.text)
}

func orUnknown(region string) string {
	if region == "" {
		return "give its --region or --endpoint"
	}
	return "give --region " + region
}

func (s *s3Store) region() string { return s.client.Options().Region }

func movedStatus(status int, code string) bool {
	return status >= 300 && status < 400 || code == "AuthorizationHeaderMalformed" || code == "IllegalLocationConstraintException"
}

// s3Error is what an answer means.
type s3Error struct {
	err  error
	text string
}

// s3Errors are the answers that their code explains better than their status does.
var s3Errors = map[string]s3Error{
	"NoSuchBucket":                {registry.ErrNotFound, "there is no such bucket at this endpoint"},
	"NoSuchKey":                   {registry.ErrNotFound, "there is no such object"},
	"NoSuchVersion":               {registry.ErrNotFound, "there is no such version of the object"},
	"InvalidBucketName":           {vault.ErrInvalid, "a bucket cannot have that name"},
	"RequestTimeTooSkewed":        {ErrDenied, "the clock of this machine differs too much from the server's: set it right"},
	"ExpiredToken":                {ErrDenied, "the credential has expired: get a new one"},
	"ExpiredTokenException":       {ErrDenied, "the credential has expired: get a new one"},
	"InvalidToken":                {ErrDenied, "the session token is not valid: get a new credential"},
	"InvalidAccessKeyId":          {ErrDenied, "the server does not know the access key"},
	"SignatureDoesNotMatch":       {ErrDenied, "the secret does not belong to the access key"},
	"AccessDenied":                {ErrDenied, "the credential is not allowed to do this"},
	"BadDigest":                   {vault.ErrDamaged, "the server received other bytes than were sent, and wrote nothing"},
	"XAmzContentSHA256Mismatch":   {vault.ErrDamaged, "the server received other bytes than were sent, and wrote nothing"},
	"XAmzContentChecksumMismatch": {vault.ErrDamaged, "the server received other bytes than were sent, and wrote nothing"},
	"ConditionalRequestConflict":  {ErrUnreachable, "the server is busy with the same name: try again later"},
	"SlowDown":                    {ErrUnreachable, "the server is busy: try again later"},
	"InsufficientStorage":         {ErrStoreFull, "free some space there"},
	"XMinioStorageFull":           {ErrStoreFull, "free some space there"},
	"QuotaExceeded":               {ErrStoreFull, "raise its quota, or free some space there"},
	"NotImplemented":              {ErrUnsupported, "add the target with --no-conditional (If-None-Match), --no-checksum (SHA-256) or both"},
	"InvalidBucketState":          {ErrUnsupported, "the bucket has no object lock: make one that has, or leave out --retain"},
}

// s3Status explains an answer by its status alone.
func s3Status(status int) s3Error {
	switch {
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return s3Errors["AccessDenied"]
	case status == http.StatusNotFound:
		return s3Error{registry.ErrNotFound, "there is no S3 server at this endpoint"}
	case status == http.StatusNotImplemented:
		return s3Errors["NotImplemented"]
	case status == http.StatusInsufficientStorage:
		return s3Errors["InsufficientStorage"]
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return s3Errors["SlowDown"]
	case status >= http.StatusInternalServerError:
		return s3Error{ErrUnreachable, "the server has an error of its own, such as a full disk: look at its log"}
	}
	return s3Error{vault.ErrInvalid, "the server refuses the request"}
}

// explainNoAnswer explains what failed before there was an answer.
func (s *s3Store) explainNoAnswer(err error) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("%w: no address is known for %q: is the network up, and the endpoint right?", ErrUnreachable, dns.Name)
	}
	if tlsError(err) {
		return fmt.Errorf("%w: %s cannot be told from an impostor: its certificate is not valid here (its authority's file is named by AWS_CA_BUNDLE)", ErrDenied, s.where())
	}
	var timeout net.Error
	switch {
	case strings.Contains(err.Error(), "get credentials") || strings.Contains(err.Error(), "get identity"):
		return fmt.Errorf("%w: this machine has no usable credential for %s: none in the environment, the profile or the instance's role, and none in the target", ErrDenied, s.target.URL)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, net.ErrClosed), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %s does not answer in time", ErrUnreachable, s.where())
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%w: %s: %s: %w", ErrUnreachable, s.where(), op.Op, op.Err)
	}
	return fmt.Errorf("%w: the connection to %s broke before its answer came", ErrUnreachable, s.where())
}

func tlsError(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &certificate) || errors.As(err, &record) || errors.As(err, &unknown) || errors.As(err, &name)
}
