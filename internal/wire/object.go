package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// FieldError says which field was refused, and by which rule. It never contains the value,
// which may be a secret in the wrong field. It matches [ErrInvalid].
type FieldError struct {
	Field string // the name in JSON and in the database, such as ssh_host
	Rule  string // what must hold, such as "must be 1 to 65535"
}

func (e *FieldError) Error() string { return e.Field + " " + e.Rule }

// Unwrap makes every FieldError an ErrInvalid.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// Field is one field of an object that [UnmarshalObject] reads.
type Field struct {
	Name     string
	Value    any // as for json.Unmarshal; *[]string, *map[string]uint32, *map[string]string, *time.Time strictly
	Required bool
	Nullable bool // null leaves Value alone
}

// UnmarshalObject reads one JSON object, with nothing after it. encoding/json alone would
// accept a repeated name, a name in other case, a null as a value, and broken UTF-8. Here each
// of these is a *FieldError, or an error that matches ErrInvalid if it belongs to no field.
func UnmarshalObject(data []byte, fields []Field) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: not UTF-8", ErrInvalid)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	seen := make([]bool, len(fields))
	err := eachMember(dec, func(name string) error {
		i := 0
		for i < len(fields) && fields[i].Name != name {
			i++
		}
		if i == len(fields) {
			// The name comes from outside. Quoted and cut, it is safe to show.
			return fmt.Errorf("%w: unknown field %.40q", ErrInvalid, name)
		}
		if seen[i] {
			return &FieldError{name, "must not be given twice"}
		}
		seen[i] = true
		return fields[i].decode(dec)
	})
	if err != nil {
		return invalidJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: more than one JSON object", ErrInvalid)
	}
	for i, f := range fields {
		if f.Required && !seen[i] {
			return &FieldError{f.Name, "is missing"}
		}
	}
	return nil
}

func (f Field) decode(dec *json.Decoder) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	if string(raw) == "null" {
		if !f.Nullable {
			return &FieldError{f.Name, "must not be null"}
		}
		return nil
	}
	var err error
	switch dst := f.Value.(type) {
	case *[]string:
		*dst, err = UnmarshalStrings(raw)
	case *map[string]uint32:
		*dst, err = UnmarshalCounts(raw)
	case *map[string]string:
		*dst, err = unmarshalMap[string](raw)
	case *time.Time:
		*dst, err = decodeTime(raw)
	default:
		err = json.Unmarshal(raw, dst)
	}
	if err != nil {
		// The text of json's error may contain the value.
		return &FieldError{f.Name, "must have " + f.kind()}
	}
	return nil
}

func (f Field) kind() string {
	switch f.Value.(type) {
	case *string:
		return "a JSON string"
	case *[]string:
		return "a JSON array of strings"
	case *map[string]uint32:
		return "a JSON object of counts, each name once"
	case *map[string]string:
		return "a JSON object of strings, each name once"
	case *time.Time:
		return "a time such as 2006-01-02T15:04:05.000Z"
	}
	return "a whole number in range"
}

// eachMember reads an object from dec. It calls fn after each name, and fn reads the value.
func eachMember(dec *json.Decoder, fn func(name string) error) error {
	if tok, err := dec.Token(); err != nil {
		return err
	} else if tok != json.Delim('{') {
		return errNoObject
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		name, ok := tok.(string)
		if !ok {
			return errNoObject
		}
		if err := fn(name); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

var errNoObject = errors.New("not a JSON object")

// invalidJSON returns our own errors unchanged. It hides the text of json's errors, which may
// contain the input.
func invalidJSON(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: not one JSON object", ErrInvalid)
}

// UnmarshalStrings reads an array of strings. The result is not nil.
func UnmarshalStrings(raw []byte) ([]string, error) {
	var items []*string
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, err
	}
	if items == nil {
		return nil, errors.New("null")
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		if item == nil {
			return nil, errors.New("null in an array")
		}
		list = append(list, *item)
	}
	return list, nil
}

// UnmarshalCounts reads an object of counts. The result is not nil.
func UnmarshalCounts(raw []byte) (map[string]uint32, error) { return unmarshalMap[uint32](raw) }

// unmarshalMap reads an object whose values are all of one type.
func unmarshalMap[T any](raw []byte) (map[string]T, error) {
	values := make(map[string]T)
	dec := json.NewDecoder(bytes.NewReader(raw))
	err := eachMember(dec, func(name string) error {
		var value *T
		if err := dec.Decode(&value); err != nil {
			return err
		}
		if _, ok := values[name]; ok || value == nil {
			return errors.New("null or repeated")
		}
		values[name] = *value
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return values, nil
}

func decodeTime(raw []byte) (time.Time, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return time.Time{}, err
	}
	return ParseTime(s)
}

// MarshalTexts is [Marshal] for a value that contains these texts. It refuses a text that is
// not UTF-8; json would replace the wrong bytes silently.
func MarshalTexts(v any, texts ...string) ([]byte, error) {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("%w: not UTF-8", ErrInvalid)
		}
	}
	return Marshal(v)
}
