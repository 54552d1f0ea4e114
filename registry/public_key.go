package registry

import (
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

const (
	maxPublicKey = 16 << 10
	maxComment   = 1024
)

// parsePublicKey parses a public key line: a type, a space and base64, without
// options or a comment. A certificate is refused. The error is a *FieldError.
func parsePublicKey(keyType, line string) (ssh.PublicKey, error) {
	fail := func(rule string) (ssh.PublicKey, error) { return nil, &FieldError{Field: "public_key", Rule: rule} }
	if len(line) > maxPublicKey {
		return fail("is too long")
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return fail("must be an SSH public key")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return fail("must not be a certificate")
	}
	if publicKeyLine(key) != line {
		return fail("must be a type and base64, nothing else")
	}
	if key.Type() != keyType {
		return nil, &FieldError{Field: "type", Rule: "must be that of the public key"}
	}
	return key, nil
}

// ruleComment returns the rule that a key's comment breaks, or "".
func ruleComment(s string) string {
	if len(s) > maxComment {
		return fmt.Sprintf("must have at most %d bytes", maxComment)
	}
	return ruleCharacters(s)
}

func publicKeyLine(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}
