package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"
)

// maxIdentityFile caps an identity file.
const maxIdentityFile = 64 << 10

// IdentityOptions says what an identity may ask for when it is used.
type IdentityOptions struct {
	// Name stands in the question for a passphrase: "identity file r.age".
	Name string
	// Passphrase asks for it. Nil: what needs one is refused when it is used.
	Passphrase PassphraseFunc
	// Plugins is how an age plugin talks to a person. Nil: it cannot.
	Plugins *plugin.ClientUI
}

// ParseIdentities reads an identity file: age identities ("AGE-SECRET-KEY-...",
// those of plugins too, with comment lines), the same encrypted under a
// passphrase by `age -p`, or one SSH private key, ed25519 or RSA. A passphrase is
// asked for when the identity is first tried, with ctx. The error matches
// [ErrInvalid] and says nothing of the content.
func ParseIdentities(ctx context.Context, r io.Reader, opts IdentityOptions) ([]age.Identity, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxIdentityFile+1))
	if err != nil {
		wipe(data)
		return nil, fmt.Errorf("read identity: %w", err)
	}
	trimmed := bytes.TrimSpace(data)
	encrypted := bytes.HasPrefix(trimmed, []byte(armor.Header)) || bytes.HasPrefix(data, []byte("age-encryption.org/"))
	switch {
	case len(data) > maxIdentityFile:
		err = fmt.Errorf("%w: an identity file has at most %d bytes", ErrInvalid, maxIdentityFile)
	case len(trimmed) == 0:
		err = fmt.Errorf("%w: the identity file is empty", ErrInvalid)
	case encrypted:
		if bytes.HasPrefix(trimmed, []byte(armor.Header)) {
			data = trimmed
		}
		return []age.Identity{&lockedIdentity{open: func() ([]age.Identity, error) {
			return openIdentityFile(ctx, data, opts)
		}}}, nil // data is ciphertext, and is needed later
	case bytes.HasPrefix(trimmed, []byte("-----BEGIN")):
		return parseSSHIdentity(ctx, data, opts)
	default:
		defer wipe(data)
		return parseIdentityLines(ctx, string(trimmed), opts)
	}
	wipe(data)
	return nil, err
}

// parseIdentityLines parses age identities, one a line. age's own parser knows no
// plugins.
func parseIdentityLines(ctx context.Context, text string, opts IdentityOptions) ([]age.Identity, error) {
	var identities []age.Identity
	claims := parseClaims(text)
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var id age.Identity
		var err error
		switch {
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			var p *plugin.Identity
			if p, err = plugin.NewIdentity(line, orSilent(opts.Plugins)); err == nil {
				id = pluginIdentity{ctx, p}
			}
		case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
			id, err = age.ParseHybridIdentity(line)
		default:
			id, err = age.ParseX25519Identity(line)
		}
		if err != nil { // and no word of it: it may hold the line
			return nil, malformedIdentity(line, number)
		}
		facts := describeIdentity(id)
		facts.claims = claims
		identities = append(identities, &fileIdentity{id, facts})
	}
	if len(identities) == 0 {
		return nil, fmt.Errorf("%w: the identity file holds no identity", ErrInvalid)
	}
	return identities, nil
}

// malformedIdentity says what is wrong with a line, and nothing of what is in it: an
// identity that was typed from paper is found out by its checksum.
func malformedIdentity(line string, number int) error {
	upper := strings.ToUpper(line)
	switch {
	case !strings.HasPrefix(upper, "AGE-SECRET-KEY-") && !strings.HasPrefix(upper, "AGE-PLUGIN-"):
		return fmt.Errorf("%w: not an age identity file", ErrInvalid)
	case line != upper:
		return fmt.Errorf("%w: line %d looks like an age identity, which is written in capitals alone", ErrInvalid, number)
	case strings.ContainsAny(line, " \t"):
		return fmt.Errorf("%w: line %d looks like an age identity, which has no spaces", ErrInvalid, number)
	}
	return fmt.Errorf("%w: line %d is an age identity whose checksum fails: a character is wrong, missing or too many", ErrInvalid, number)
}

// pluginIdentity is an identity of an age plugin. A plugin may hang, and age gives it
// no context: the wait ends with ctx, and the plugin is left behind.
type pluginIdentity struct {
	ctx context.Context
	*plugin.Identity
}

var _ age.Identity = pluginIdentity{}

// Unwrap implements [age.Identity].
func (p pluginIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if err := p.ctx.Err(); err != nil {
		return nil, err // another slot: it is not started again
	}
	type result struct {
		fileKey []byte
		err     error
	}
	done := make(chan result, 1)
	go func() {
		fileKey, err := p.Identity.Unwrap(stanzas)
		done <- result{fileKey, err}
	}()
	select {
	case r := <-done:
		return r.fileKey, r.err
	case <-p.ctx.Done():
		return nil, fmt.Errorf("age-plugin-%s: %w", p.Name(), p.ctx.Err())
	}
}

// openIdentityFile asks for the passphrase of an encrypted identity file.
func openIdentityFile(ctx context.Context, data []byte, opts IdentityOptions) (identities []age.Identity, err error) {
	err = AskPassphrase(ctx, opts.Passphrase, opts.name(), func(passphrase []byte) error {
		plain, err := openPassphrase(data, passphrase)
		if err != nil {
			return err
		}
		defer wipe(plain)
		identities, err = parseIdentityLines(ctx, string(plain), opts)
		return err
	})
	return identities, err
}

func (o IdentityOptions) name() string {
	if o.Name == "" {
		return "the identity file"
	}
	return o.Name
}

// parseSSHIdentity parses an SSH private key.
func parseSSHIdentity(ctx context.Context, data []byte, opts IdentityOptions) ([]age.Identity, error) {
	key, err := ssh.ParseRawPrivateKey(data)
	if err == nil {
		wipe(data)
		id, err := newSSHIdentity(key)
		if err != nil {
			return nil, err
		}
		return []age.Identity{id}, nil
	}
	missing, ok := errors.AsType[*ssh.PassphraseMissingError](err)
	if !ok {
		wipe(data)
		return nil, errNotSSHIdentity
	}
	locked := &lockedIdentity{open: func() (identities []age.Identity, err error) {
		err = AskPassphrase(ctx, opts.Passphrase, opts.name(), func(passphrase []byte) error {
			key, err := ssh.ParseRawPrivateKeyWithPassphrase(data, passphrase)
			if err != nil {
				return ErrPassphrase
			}
			id, err := newSSHIdentity(key)
			identities = []age.Identity{id}
			return err
		})
		return identities, err
	}}
	if missing.PublicKey != nil { // an old PEM file does not tell whose it is
		// agessh asks for the passphrase where a slot is this key's, and says
		// otherwise that it is not.
		asks := func() ([]byte, error) { return nil, errors.New("asked") }
		matcher, err := agessh.NewEncryptedSSHIdentity(missing.PublicKey, data, asks)
		if err != nil {
			return nil, errNotSSHIdentity
		}
		locked.mine = func(stanzas []*age.Stanza) bool {
			_, err := matcher.Unwrap(stanzas)
			return !errors.Is(err, age.ErrIncorrectIdentity)
		}
	}
	return []age.Identity{locked}, nil
}

// fileIdentity is an identity of a file, with what else is known of it.
type fileIdentity struct {
	age.Identity
	identityFacts
}

var errNotSSHIdentity = fmt.Errorf("%w: not an ssh-ed25519 or ssh-rsa private key", ErrInvalid)

// newSSHIdentity makes an identity of an SSH private key. Its secret, by which it
// vouches, is the seed of ed25519 or the larger prime of RSA.
func newSSHIdentity(key any) (age.Identity, error) {
	if k, ok := key.(*ed25519.PrivateKey); ok {
		key = *k
	}
	var id age.Identity
	var secret []byte
	var err error
	switch k := key.(type) {
	case ed25519.PrivateKey:
		id, err = agessh.NewEd25519Identity(k)
		secret = k.Seed()
	case *rsa.PrivateKey:
		id, err = agessh.NewRSAIdentity(k)
		if len(k.Primes) == 2 {
			secret = k.Primes[0].Bytes()
			if k.Primes[1].Cmp(k.Primes[0]) > 0 {
				secret = k.Primes[1].Bytes()
			}
		}
	default:
		err = errNotSSHIdentity
	}
	if err != nil {
		return nil, errNotSSHIdentity
	}
	defer wipe(secret)
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, errNotSSHIdentity
	}
	facts := identityFacts{recipient: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}
	if secret != nil {
		facts.vouchKey = vouchKey(secret)
	}
	return &fileIdentity{id, facts}, nil
}

// lockedIdentity is one that needs a passphrase. It is opened once, when it is
// first tried; where that fails it opens nothing, so that others may be tried,
// and [IdentityError] tells why.
type lockedIdentity struct {
	open func() ([]age.Identity, error)
	mine func(stanzas []*age.Stanza) bool // nil: that cannot be told before

	once       sync.Once
	identities []age.Identity
	err        error
}

var _ age.Identity = (*lockedIdentity)(nil)

// Unwrap implements [age.Identity].
func (l *lockedIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if l.mine != nil && !l.mine(stanzas) {
		return nil, age.ErrIncorrectIdentity
	}
	l.once.Do(func() { l.identities, l.err = l.open() })
	for _, id := range l.identities {
		fileKey, err := id.Unwrap(stanzas)
		if errors.Is(err, age.ErrIncorrectIdentity) {
			continue
		}
		return fileKey, err
	}
	return nil, age.ErrIncorrectIdentity
}

// IdentityError tells, when the identities opened nothing, which of them could
// not be tried and why, such as for a wrong passphrase; nil: all were tried.
func IdentityError(identities []age.Identity) error {
	for _, id := range identities {
		if l, ok := id.(*lockedIdentity); ok && l.err != nil {
			return l.err
		}
	}
	return nil
}
