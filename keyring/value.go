package keyring

// MaxValue is the longest value that Set accepts, in bytes. Windows holds 2560 bytes. macOS
// holds what fits, base64-encoded, into a command of 4096 bytes. The limit is the same on all
// systems.
const MaxValue = 2048

// CheckValue returns nil if value can be stored. An empty value is ErrInvalidValue, one longer
// than MaxValue is ErrTooBig, and one with anything but printable ASCII, from space to tilde,
// is ErrInvalidValue. The reasons: a line break can make a plaintext keyring file unreadable,
// and some systems return other characters in another encoding.
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
