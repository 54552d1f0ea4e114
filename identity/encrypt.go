package identity

import (
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Encrypt encrypts a short text to one recipient, as armored age.
func Encrypt(plaintext []byte, r age.Recipient) (string, error) {
	var out strings.Builder
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, r)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(plaintext); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if err := a.Close(); err != nil {
		return "", err
	}
	return out.String(), nil
}

// Decrypt decrypts what Encrypt returned. Of a text longer than limit bytes it returns limit+1
// bytes. If no identity matches, the error is an [*age.NoIdentityMatchError]. The caller wipes
// the text.
func Decrypt(encrypted string, limit int, identities ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(encrypted)), identities...)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		clear(text)
		return nil, err
	}
	return text, nil
}
