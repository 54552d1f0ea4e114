package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrInvalid: a value breaks a rule that the message names.
var ErrInvalid = errors.New("invalid")

// Marshal encodes v as JSON on one line, without the escapes that HTML would need.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Unmarshal decodes one JSON value of known fields, and nothing behind it. The error
// matches [ErrInvalid]. It takes other spellings of the same value: where one text alone
// is right, the caller encodes the value again and compares. For objects that people
// write there is [UnmarshalObject].
func Unmarshal(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: more than one JSON value", ErrInvalid)
	}
	return nil
}

// Nullable is s for a field that is null where s is empty.
func Nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Text is what Nullable was given.
func Text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
