package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrInvalid: a value breaks a rule. The message names the rule.
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

// Unmarshal decodes one JSON value with known fields, and nothing after it. The error matches
// [ErrInvalid]. It accepts different texts for the same value: if only one text is valid, the
// caller must encode the value again and compare. For objects that people write there is
// [UnmarshalObject].
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

// Nullable returns s for a field that is null if s is empty.
func Nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Text returns the s that Nullable was given.
func Text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
