package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Class is the class of a recipient. All recipients of an age file must be of one class.
type Class string

// The classes.
const (
	Classic     Class = "classic"
	PostQuantum Class = "post-quantum"
)

// MaxRecipient is the longest recipient. A post-quantum one has 1959 characters, an RSA key of
// 16384 bits has 2800.
const MaxRecipient = 4096

// ParseRecipient parses an age recipient ("age1...", "age1pq1...", "age1tag1...",
// "age1tagpq1..."), that of an age plugin ("age1NAME1..."), or an SSH public key ("ssh-ed25519
// ...", "ssh-rsa ..."). It runs no plugin. The plugin runs when something is encrypted to the
// recipient; ui is how it asks a person then. Nil: it cannot ask. The error matches
// [ErrInvalid].
func ParseRecipient(s string, ui *plugin.ClientUI) (age.Recipient, error) {
	if len(s) > MaxRecipient {
		return nil, fmt.Errorf("%w: a recipient has at most %d characters", ErrInvalid, MaxRecipient)
	}
	var r age.Recipient
	var err error
	switch upper := strings.ToUpper(s); {
	case strings.HasPrefix(upper, "AGE-"), strings.Contains(upper, "PRIVATE KEY"):
		return nil, fmt.Errorf("%w: that is a private key, but a recipient (a public key) is needed", ErrInvalid)
	case strings.HasPrefix(s, "age1pq1"):
		r, err = age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1tag1"), strings.HasPrefix(s, "age1tagpq1"):
		r, err = tag.ParseRecipient(s)
	case strings.HasPrefix(s, "age1") && strings.Count(s, "1") > 1:
		r, err = newPluginRecipient(s, ui)
	case strings.HasPrefix(s, "age1"):
		r, err = age.ParseX25519Recipient(s)
	case strings.HasPrefix(s, "ssh-"):
		r, err = agessh.ParseRecipient(s)
	default:
		err = errors.New("not age1..., ssh-ed25519 or ssh-rsa")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: recipient %q: %w", ErrInvalid, Short(s), err)
	}
	return r, nil
}

// ParseRecipientWithin is ParseRecipient for a recipient whose plugin is abandoned when ctx
// ends.
func ParseRecipientWithin(ctx context.Context, s string, ui *plugin.ClientUI) (age.Recipient, error) {
	r, err := ParseRecipient(s, ui)
	if p, ok := r.(pluginRecipient); ok {
		p.ctx = ctx
		r = p
	}
	return r, err
}

// PluginName returns the name of a recipient's plugin, or "".
func PluginName(r age.Recipient) string {
	if p, ok := r.(pluginRecipient); ok {
		return p.Name()
	}
	return ""
}

// orSilent returns ui, or one that refuses to ask if ui is nil.
func orSilent(ui *plugin.ClientUI) *plugin.ClientUI {
	if ui == nil {
		return &plugin.ClientUI{}
	}
	return ui
}

// ClassOf returns the class of a recipient. It encrypts a test key to it and reads the labels:
// by its labels a recipient says with which others it can share an age file. An error of a
// plugin matches [ErrPlugin].
func ClassOf(r age.Recipient) (Class, error) {
	labelled, ok := r.(age.RecipientWithLabels)
	if !ok {
		return Classic, nil
	}
	fileKey := make([]byte, 16)
	rand.Read(fileKey)
	_, labels, err := labelled.WrapWithLabels(fileKey)
	switch {
	case err != nil:
		return "", err
	case len(labels) == 0:
		return Classic, nil
	case slices.Equal(labels, []string{"postquantum"}):
		return PostQuantum, nil
	}
	return "", fmt.Errorf("%w: its plugin says that the recipient cannot be combined with others (labels %q)", ErrInvalid, labels)
}

// pluginWait is how long one call of a recipient's plugin may take. A person may have to touch
// a token.
const pluginWait = time.Minute

// Await runs a function that may never return, such as a call of a plugin or a read from a
// pipe. When ctx ends, the function is abandoned and still runs, so its data must not be
// shared.
func Await[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := fn()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// pluginRecipient is a recipient of an age plugin. Its errors match [ErrPlugin]. A call that
// takes too long is abandoned.
type pluginRecipient struct {
	*plugin.Recipient
	ctx  context.Context // of the caller that encrypts; [context.Background] if it is not known
	wait time.Duration
}

var _ age.RecipientWithLabels = pluginRecipient{}

func newPluginRecipient(s string, ui *plugin.ClientUI) (age.Recipient, error) {
	r, err := plugin.NewRecipient(s, orSilent(ui))
	if err != nil {
		return nil, err
	}
	return pluginRecipient{r, context.Background(), pluginWait}, nil
}

// Wrap implements [age.Recipient].
func (r pluginRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := r.WrapWithLabels(fileKey)
	return stanzas, err
}

// WrapWithLabels implements [age.RecipientWithLabels].
func (r pluginRecipient) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	type answer struct {
		stanzas []*age.Stanza
		labels  []string
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.wait)
	defer cancel()
	fileKey = slices.Clone(fileKey)
	got, err := Await(ctx, func() (a answer, err error) {
		a.stanzas, a.labels, err = r.Recipient.WrapWithLabels(fileKey)
		return a, err
	})
	stanzas, labels := got.stanzas, got.labels
	if errors.Is(err, context.DeadlineExceeded) && r.ctx.Err() == nil {
		return nil, nil, fmt.Errorf("%w: age-plugin-%s did not answer within %s", ErrPlugin, r.Name(), r.wait)
	}
	if missing, ok := errors.AsType[*plugin.NotFoundError](err); ok {
		err = fmt.Errorf("%w: age-plugin-%s is not installed", ErrPlugin, missing.Name)
	} else if err != nil {
		err = fmt.Errorf("%w: age-plugin-%s: %w", ErrPlugin, r.Name(), err)
	}
	return stanzas, labels, err
}

// CanonicalRecipient removes an SSH key's comment and extra white space, so that a key always
// has the same text. The comment is returned as label.
func CanonicalRecipient(s string) (recipient, label string) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "ssh-") {
		return s, ""
	}
	fields := strings.Fields(s)
	if len(fields) < 2 {
		return s, ""
	}
	return fields[0] + " " + fields[1], strings.Join(fields[2:], " ")
}

// Short shortens a recipient for a message.
func Short(recipient string) string { return wire.Shorten(recipient, 40) }

// CheckClass returns [ErrInvalid] for a recipient that is not of the class. An error of its
// plugin is [ErrPlugin].
func CheckClass(recipient string, class Class, ui *plugin.ClientUI) error {
	r, err := ParseRecipient(recipient, ui)
	if err != nil {
		return err
	}
	got, err := ClassOf(r)
	if err != nil {
		return fmt.Errorf("recipient %q: %w", Short(recipient), err)
	}
	if got != class {
		return fmt.Errorf("%w: recipient %q is %s, but the vault is %s: all recipients of a vault must be of one class", ErrInvalid, Short(recipient), got, class)
	}
	return nil
}
