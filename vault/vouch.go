package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// Anybody who knows a public recipient can make a vault that its identity opens. So when an
// identity opens a vault, something must vouch for the vault's signer. The signer's binding in
// vault_meta then vouches for the key. The first of these that applies decides alone:
//
//   1. Config.Signer, from the operator's sheet
//   2. the comments of the identity file, if they name this vault
//   3. the slot's vouch: an HMAC under a key that only the identity gives
//   4. the operator, who is asked
//
// If the keyring's item opens the vault, it proves the key, and nothing else is needed.

// Unvouched describes a vault whose signer nothing vouches for.
type Unvouched struct {
	Path    string
	VaultID string
	KeyID   KeyID
	Signer  string // fingerprint
	// Named are the vault ids in the comments of the identity file.
	Named []string
}

// vouchKey is the key with which an identity vouches for signers. It is nil if the identity has
// no secret of its own.
func vouchKey(id age.Identity) []byte {
	return identity.Describe(id).Derive("rbee-vault/v1/vouch")
}

// vouchFor returns the vouch of an identity for a signer.
func vouchFor(key []byte, vaultID, signer string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write(certifiedText(vaultID, signer))
	return hex.EncodeToString(mac.Sum(nil))
}

// claim is what the comments of an identity file say about a vault.
type claim struct {
	vaultID string
	signer  string // fingerprint
}

// parseClaims reads the comments of identity files and sheets: "vault id" and then "signer",
// each with its value. A vault id without a signer is a claim that no signer matches. So a page
// that was cut off does not claim less than the whole page.
func parseClaims(text string) []claim {
	var claims []claim
	vaultID := ""
	end := func(signer string) {
		if vaultID != "" {
			claims = append(claims, claim{vaultID, signer})
		}
		vaultID = ""
	}
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !ok {
			continue
		}
		if id, ok := commentValue(comment, "vault id"); ok {
			end("")
			vaultID = id
		} else if signer, ok := commentValue(comment, "signer"); ok {
			end(signer)
		}
	}
	end("")
	return claims
}

// commentValue returns the word after a name and a colon or white space.
func commentValue(comment, name string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(comment), name)
	if !ok || rest == "" || !strings.ContainsAny(rest[:1], ": \t") {
		return "", false
	}
	words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(rest), ":"))
	if len(words) == 0 {
		return "", false
	}
	return words[0], true
}

// ParseSheet returns the fingerprint of the signer that a sheet or an identity file names. If
// it names none or several, the error matches [ErrInvalid].
func ParseSheet(data []byte) (string, error) {
	claims := parseClaims(string(data))
	if len(claims) == 0 || claims[0].signer == "" {
		return "", fmt.Errorf("%w: it names no signer", ErrInvalid)
	}
	for _, c := range claims[1:] {
		if c.signer != claims[0].signer {
			return "", fmt.Errorf("%w: it names several signers: give the fingerprint of one", ErrInvalid)
		}
	}
	return claims[0].signer, nil
}

// leadsFrom reports whether the fingerprint is in the trail: the newest signer, or one from
// which certificates lead to it.
func leadsFrom(trail []string, fingerprint string) bool {
	return fingerprint != "" && slices.ContainsFunc(trail, func(line string) bool { return Fingerprint(line) == fingerprint })
}

// vouchKeys returns the vouch keys of identities, by recipient. It does not ask for the
// passphrase of an identity that is still locked.
func vouchKeys(identities []age.Identity) map[string][]byte {
	keys := map[string][]byte{}
	for _, id := range identities {
		for _, id := range append([]age.Identity{id}, identity.Opened(id)...) {
			recipient, key := identity.Describe(id).Recipient, vouchKey(id)
			if recipient != "" && key != nil {
				keys[recipient] = key
			}
		}
	}
	return keys
}
