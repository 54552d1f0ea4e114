package keyring

// MaxValue is the longest value in bytes that Set accepts. Windows holds 2560 bytes, and
// macOS what fits base64-encoded into a command of 4096; what is accepted on one system
// is accepted on all.
const MaxValue = 2048

// CheckValue returns nil if value can be stored: not empty (else ErrInvalidValue), no
// longer than MaxValue (else ErrTooBig), and printable ASCII from space to tilde (else
// ErrInvalidValue). A line break can make a keyring file in plaintext form unreadable, and
// other characters come back in another encoding from some systems.
func CheckValue(value string) error {
	if value == "" {
		return ErrInvalidValue
	}
	if len(value) > MaxValue {
		return ErrTooBig
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return ErrInvalidValue
		}
	}
	return nil
}
