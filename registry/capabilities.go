package registry

import (
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Backends and devices are stored as JSON: an array and an object, sorted, without
// spaces. No valid name has a character that JSON escapes.

func formatBackends(names []string) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(name)
		b.WriteByte('"')
	}
	b.WriteByte(']')
	return b.String()
}

func formatDevices(counts map[string]uint32) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(name)
		b.WriteString(`":`)
		b.WriteString(strconv.FormatUint(uint64(counts[name]), 10))
	}
	b.WriteByte('}')
	return b.String()
}

// parseBackends reads any JSON array of strings. For the form that formatBackends
// writes it needs no JSON decoder, which would be slow. The result is sorted,
// unique and not nil. The names are not checked.
func parseBackends(text string) ([]string, error) {
	if text == "[]" {
		return []string{}, nil
	}
	if names, ok := splitBackends(text); ok {
		return names, nil
	}
	names, err := wire.UnmarshalStrings([]byte(text))
	return normalizeBackends(names), err
}

// splitBackends reads the form that formatBackends writes, and reports whether the
// text has that form.
func splitBackends(text string) ([]string, bool) {
	if len(text) < 4 || !strings.HasPrefix(text, `["`) || !strings.HasSuffix(text, `"]`) {
		return nil, false
	}
	names := strings.Split(text[2:len(text)-2], `","`)
	for i, name := range names {
		if ruleBackend(name) != "" || i > 0 && names[i-1] >= name {
			return nil, false
		}
	}
	return names, true
}

// parseDevices reads any JSON object of counts. For the form that formatDevices
// writes it needs no JSON decoder, which would be slow. The result is not nil. The
// names are not checked.
func parseDevices(text string) (map[string]uint32, error) {
	if counts, ok := splitDevices(text); ok {
		return counts, nil
	}
	return wire.UnmarshalCounts([]byte(text))
}

// splitDevices reads the form that formatDevices writes, and reports whether the
// text has that form.
func splitDevices(text string) (map[string]uint32, bool) {
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, false
	}
	rest := text[1 : len(text)-1]
	counts := make(map[string]uint32, 2)
	for more := rest != ""; more; {
		var item string
		item, rest, more = strings.Cut(rest, ",")
		name, number, ok := strings.Cut(item, `":`)
		if !ok || name == "" || name[0] != '"' || ruleBackend(name[1:]) != "" {
			return nil, false
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || number[0] == '0' && number != "0" {
			return nil, false
		}
		if _, ok := counts[name[1:]]; ok {
			return nil, false
		}
		counts[name[1:]] = uint32(n)
	}
	return counts, true
}
