package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// PassphraseFunc asks for the passphrase of what ("identity file r.age"). attempt counts from
// 1: if the passphrase was wrong, it is asked again, up to three times. An error ends that. The
// returned passphrase is wiped.
type PassphraseFunc func(ctx context.Context, what string, attempt int) ([]byte, error)

// maxAttempts is how often to ask for a passphrase.
const maxAttempts = 3

// AskPassphrase asks for the passphrase of what until try accepts it, three times at most. Any
// error of try but [ErrPassphrase] ends it. If ask is nil, the error matches [ErrNoUnlockMethod].
func AskPassphrase(ctx context.Context, ask PassphraseFunc, what string, try func(passphrase []byte) error) error {
	if ask == nil {
		return fmt.Errorf("%w: %s needs a passphrase, and there is no way to ask for one", ErrNoUnlockMethod, what)
	}
	err := ErrPassphrase
	for attempt := 1; attempt <= maxAttempts && errors.Is(err, ErrPassphrase); attempt++ {
		passphrase, e := ask(ctx, what, attempt)
		if e != nil {
			if attempt > 1 && errors.Is(e, ErrWrongKey) {
				break // it has no other passphrase than the wrong one
			}
			return fmt.Errorf("passphrase of %s: %w", what, e)
		}
		err = try(passphrase)
		clear(passphrase)
	}
	if errors.Is(err, ErrPassphrase) {
		return fmt.Errorf("%w of %s", ErrPassphrase, what)
	}
	return err
}

// The scrypt work factors that a passphrase may have. 2^18 takes 256 MiB and about a second. A
// file with a higher factor than MaxWorkFactor is refused.
const (
	MinWorkFactor = 18
	MaxWorkFactor = 20
)

// Lock encrypts an identity under a passphrase, as armored age that `age -d` opens.
func Lock(identity string, passphrase []byte, workFactor int) (string, error) {
	r, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r.SetWorkFactor(workFactor)
	return Encrypt([]byte(identity+"\n"), r)
}

// Unlock returns the identities that Lock or `age -p` encrypted under a passphrase, armored or
// not. If the passphrase is wrong, the error is [ErrPassphrase].
func Unlock(ctx context.Context, locked, passphrase []byte, opts Options) ([]age.Identity, error) {
	plain, err := decryptByPassphrase(locked, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return parseLines(ctx, string(plain), opts)
}

func decryptByPassphrase(data, passphrase []byte) ([]byte, error) {
	id, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, ErrPassphrase // an empty passphrase
	}
	id.SetMaxWorkFactor(MaxWorkFactor)
	var r io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte(armor.Header)) {
		r = armor.NewReader(r)
	}
	plain, err := age.Decrypt(r, id)
	if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
		return nil, ErrPassphrase
	}
	var out []byte
	if err == nil {
		out, err = io.ReadAll(io.LimitReader(plain, MaxFile+1))
	}
	if err != nil {
		clear(out)
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return out, nil
}
