package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// jsonField is one field of an object that decodeObject reads.
type jsonField struct {
	name     string
	dst      any // as for json.Unmarshal; *[]string and *map[string]uint32 strictly
	required bool
	nullable bool // null leaves dst alone
}

// decodeObject reads one JSON object and nothing behind it. encoding/json
// alone would let pass a repeated name, a name in other case, a null for a
// value and broken UTF-8; each is a *FieldError here, or an error of ErrInvalid
// where no field is to blame.
func decodeObject(data []byte, fields []jsonField) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: not UTF-8", ErrInvalid)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	seen := make([]bool, len(fields))
	err := eachMember(dec, func(name string) error {
		i := 0
		for i < len(fields) && fields[i].name != name {
			i++
		}
		if i == len(fields) {
			// The name comes from outside: quoted and cut, it can be shown.
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
		if f.required && !seen[i] {
			return &FieldError{f.name, "is missing"}
		}
	}
	return nil
}

func (f jsonField) decode(dec *json.Decoder) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	if string(raw) == "null" {
		if !f.nullable {
			return &FieldError{f.name, "must not be null"}
		}
		return nil
	}
	var err error
	switch dst := f.dst.(type) {
	case *[]string:
		*dst, err = decodeStrings(raw)
	case *map[string]uint32:
		*dst, err = decodeCounts(raw)
	case *time.Time:
		*dst, err = decodeTime(raw)
	default:
		err = json.Unmarshal(raw, dst)
	}
	if err != nil {
		// json's own text may quote the value.
		return &FieldError{f.name, "must have " + f.kind()}
	}
	return nil
}

func (f jsonField) kind() string {
	switch f.dst.(type) {
	case *string:
		return "a JSON string"
	case *[]string:
		return "a JSON array of strings"
	case *map[string]uint32:
		return "a JSON object of counts, each name once"
	case *time.Time:
		return "a time such as 2006-01-02T15:04:05.000Z"
	}
	return "a whole number in range"
}

// eachMember reads an object from dec and calls fn after each name; fn reads
// the value.
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

// invalidJSON keeps an error of ours and hides the text of json's, which may
// quote what it read.
func invalidJSON(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: not one JSON object", ErrInvalid)
}

// decodeStrings reads an array of strings. The result is not nil.
func decodeStrings(raw []byte) ([]string, error) {
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

// decodeCounts reads an object of counts. The result is not nil.
func decodeCounts(raw []byte) (map[string]uint32, error) {
	counts := make(map[string]uint32)
	dec := json.NewDecoder(bytes.NewReader(raw))
	err := eachMember(dec, func(name string) error {
		var n *uint32
		if err := dec.Decode(&n); err != nil {
			return err
		}
		if _, ok := counts[name]; ok || n == nil {
			return errors.New("null or repeated")
		}
		counts[name] = *n
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return counts, nil
}

func decodeTime(raw []byte) (time.Time, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return time.Time{}, err
	}
	return vault.ParseTime(s)
}

// encodeObject is vault.MarshalJSON for a value with these texts in it. It
// refuses text that is not UTF-8, which json would replace without a word.
func encodeObject(v any, texts ...string) ([]byte, error) {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("%w: not UTF-8", ErrInvalid)
		}
	}
	return vault.MarshalJSON(v)
}
