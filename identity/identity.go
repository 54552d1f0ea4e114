package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
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

// MaxFile is the largest size of an identity file, in bytes.
const MaxFile = 64 << 10

// Options says what an identity may ask for when it is used.
type Options struct {
	// Name is the name of the file in the question for a passphrase: "identity file r.age".
	Name string
	// Passphrase asks for the passphrase. Nil: an identity that needs one fails when it is
	// used.
	Passphrase PassphraseFunc
	// Plugins is how an age plugin asks a person. Nil: it cannot ask.
	Plugins *plugin.ClientUI
}

// Parse reads an identity file. The file has age identities ("AGE-SECRET-KEY-..." or those of
// plugins) with comment lines; or the same encrypted under a passphrase by `age -p`; or one SSH
// private key, ed25519 or RSA. The passphrase is asked for, with ctx, when the identity is
// first tried. The error matches [ErrInvalid] and contains nothing of the file.
func Parse(ctx context.Context, r io.Reader, opts Options) ([]age.Identity, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		clear(data)
		return nil, fmt.Errorf("read identity: %w", err)
	}
	trimmed := bytes.TrimSpace(data)
	encrypted := bytes.HasPrefix(trimmed, []byte(armor.Header)) || bytes.HasPrefix(data, []byte("age-encryption.org/"))
	switch {
	case len(data) > MaxFile:
		err = fmt.Errorf("%w: an identity file has at most %d bytes", ErrInvalid, MaxFile)
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
		defer clear(data)
		return parseLines(ctx, string(trimmed), opts)
	}
	clear(data)
	return nil, err
}

// parseLines parses age identities, one per line; one that was typed from paper may go over
// several lines. age's own parser does not support plugins.
func parseLines(ctx context.Context, text string, opts Options) ([]age.Identity, error) {
	comments := commentsOf(text)
	lines, err := identityLines(text)
	if err != nil {
		return nil, err
	}
	var identities []age.Identity
	for _, line := range lines {
		var id age.Identity
		if strings.HasPrefix(line.text, "AGE-PLUGIN-") {
			p, err := plugin.NewIdentity(line.text, orSilent(opts.Plugins))
			if err != nil { // the error is not wrapped: it may contain the line
				return nil, fmt.Errorf("%w: line %d is not the identity of a plugin: a character is wrong, missing or extra", ErrInvalid, line.number)
			}
			id = pluginIdentity{ctx, p}
		} else if id, err = ParseTyped(line.text); err != nil {
			return nil, fmt.Errorf("line %d: %w", line.number, err)
		}
		facts := describe(id)
		facts.Comments = comments
		identities = append(identities, &described{id, facts})
	}
	if len(identities) == 0 {
		return nil, fmt.Errorf("%w: the identity file holds no identity", ErrInvalid)
	}
	return identities, nil
}

// identityLine is an identity in a file, and the number of its first line.
type identityLine struct {
	text   string
	number int
}

// identityLines divides a file into identities, and leaves out comments.
func identityLines(text string) (lines []identityLine, err error) {
	number, open := 0, false // open: the next line may belong to the last identity
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			open = false
		case looksTyped(line):
			lines, open = append(lines, identityLine{line, number}), true
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			lines, open = append(lines, identityLine{line, number}), false
		case open:
			lines[len(lines)-1].text += line
		default:
			return nil, fmt.Errorf("%w: not an age identity file", ErrInvalid)
		}
	}
	return lines, nil
}

func commentsOf(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// pluginIdentity is an identity of an age plugin. A plugin may hang, and age gives it no
// context. When ctx ends, the call is abandoned.
type pluginIdentity struct {
	ctx context.Context
	*plugin.Identity
}

var _ age.Identity = pluginIdentity{}

// Unwrap implements [age.Identity].
func (p pluginIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if err := p.ctx.Err(); err != nil {
		return nil, err // for the next slot the plugin is not started again
	}
	fileKey, err := Await(p.ctx, func() ([]byte, error) { return p.Identity.Unwrap(stanzas) })
	if ended := p.ctx.Err(); ended != nil && errors.Is(err, ended) {
		return nil, fmt.Errorf("age-plugin-%s: %w", p.Name(), err)
	}
	return fileKey, err
}

// openIdentityFile asks for the passphrase of an encrypted identity file.
func openIdentityFile(ctx context.Context, data []byte, opts Options) (identities []age.Identity, err error) {
	err = AskPassphrase(ctx, opts.Passphrase, opts.name(), func(passphrase []byte) (err error) {
		identities, err = Unlock(ctx, data, passphrase, opts)
		return err
	})
	return identities, err
}

func (o Options) name() string {
	if o.Name == "" {
		return "the identity file"
	}
	return o.Name
}

// parseSSHIdentity parses an SSH private key.
func parseSSHIdentity(ctx context.Context, data []byte, opts Options) ([]age.Identity, error) {
	key, err := ssh.ParseRawPrivateKey(data)
	if err == nil {
		clear(data)
		id, err := newSSHIdentity(key)
		if err != nil {
			return nil, err
		}
		return []age.Identity{id}, nil
	}
	missing, ok := errors.AsType[*ssh.PassphraseMissingError](err)
	if !ok {
		clear(data)
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
	if missing.PublicKey != nil { // an old PEM file does not contain the public key
		// agessh asks for the passphrase only if a slot belongs to this key. Otherwise it
		// returns that the identity is incorrect.
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

// Facts is what is known about an identity, besides how it decrypts.
type Facts struct {
	Recipient string // "" if only its plugin knows it
	Comments  string // the comment lines of its file
	root      []byte // HKDF's extract of its secret; nil if it has none, as with a plugin
}

// Derive returns 32 bytes that only the holder of the identity can compute. They are
// HKDF-SHA256 of its secret: for age's own identities, the text of the identity; for ed25519,
// the seed; for RSA, the larger prime. It returns nil if the identity has no secret of its own.
func (f Facts) Derive(info string) []byte {
	if f.root == nil {
		return nil
	}
	key, err := hkdf.Expand(sha256.New, f.root, info, sha256.Size)
	if err != nil {
		panic(err) // only for lengths that HKDF refuses
	}
	return key
}

// extract returns the value from which keys are derived, so that the secret itself need not be
// kept.
func extract(secret []byte) []byte {
	root, err := hkdf.Extract(sha256.New, secret, nil)
	if err != nil {
		panic(err) // only for hashes that are not allowed
	}
	return root
}

// Describe returns what is known about an identity.
func Describe(id age.Identity) Facts {
	if d, ok := id.(*described); ok {
		return d.Facts
	}
	return describe(id)
}

func describe(id age.Identity) Facts {
	switch id := id.(type) {
	case *age.X25519Identity:
		return Facts{Recipient: id.Recipient().String(), root: extract([]byte(id.String()))}
	case *age.HybridIdentity:
		return Facts{Recipient: id.Recipient().String(), root: extract([]byte(id.String()))}
	}
	return Facts{}
}

// Text returns the identity as age writes it ("AGE-SECRET-KEY-..."). For any other than age's
// own it returns "".
func Text(id age.Identity) string {
	if d, ok := id.(*described); ok {
		id = d.Identity
	}
	switch id := id.(type) {
	case *age.X25519Identity:
		return id.String()
	case *age.HybridIdentity:
		return id.String()
	}
	return ""
}

// ParseText parses what Text returns.
func ParseText(text string) (age.Identity, error) {
	if strings.HasPrefix(text, "AGE-SECRET-KEY-PQ-1") {
		return age.ParseHybridIdentity(text)
	}
	return age.ParseX25519Identity(text)
}

// Opened returns the identities under a passphrase, once the passphrase was given. For any
// other identity it returns nothing.
func Opened(id age.Identity) []age.Identity {
	if l, ok := id.(*lockedIdentity); ok {
		return l.identities
	}
	return nil
}

// Generate generates an identity of the class and returns its text and its recipient.
func Generate(class Class) (identity, recipient string, err error) {
	if class == PostQuantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return "", "", err
		}
		return id.String(), id.Recipient().String(), nil
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", err
	}
	return id.String(), id.Recipient().String(), nil
}

// described is an identity with its facts.
type described struct {
	age.Identity
	Facts
}

var errNotSSHIdentity = fmt.Errorf("%w: not an ssh-ed25519 or ssh-rsa private key", ErrInvalid)

// newSSHIdentity returns the identity of an SSH private key.
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
	defer clear(secret)
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, errNotSSHIdentity
	}
	facts := Facts{Recipient: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}
	if secret != nil {
		facts.root = extract(secret)
	}
	return &described{id, facts}, nil
}

// lockedIdentity is an identity that needs a passphrase. It is opened once, when it is first
// tried. If that fails, it matches nothing, so that other identities are tried, and [Unopened]
// returns the cause.
type lockedIdentity struct {
	open func() ([]age.Identity, error)
	mine func(stanzas []*age.Stanza) bool // nil: that is not known before it is opened

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

// Unopened returns why an identity could not be tried, such as a wrong passphrase. It is called
// when the identities opened nothing. Nil: all were tried.
func Unopened(identities []age.Identity) error {
	for _, id := range identities {
		if l, ok := id.(*lockedIdentity); ok && l.err != nil {
			return l.err
		}
	}
	return nil
}

// UsesPlugin reports whether an identity starts an age plugin, which may ask a person.
func UsesPlugin(id age.Identity) bool {
	if d, ok := id.(*described); ok {
		id = d.Identity
	}
	_, ok := id.(pluginIdentity)
	return ok
}
