package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// formatFlag is --format: a template that prints each object of --json as text.
type formatFlag struct {
	app  *app
	text string
}

// String implements [pflag.Value].
func (f *formatFlag) String() string { return f.text }

// Type implements [pflag.Value].
func (f *formatFlag) Type() string { return "template" }

// Set implements [pflag.Value].
func (f *formatFlag) Set(text string) error {
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"json": templateJSON, "join": templateJoin}).Parse(text)
	if err != nil {
		return err
	}
	f.text, f.app.format, f.app.json = text, t, true
	return nil
}

func templateJSON(v any) (string, error) {
	line, err := wire.Marshal(v)
	return string(line), err
}

func templateJoin(v any, separator string) (string, error) {
	list, ok := v.([]any)
	if _, none := v.(noList); !ok && !none && v != "" {
		return "", fmt.Errorf("join takes a list, not %v", v)
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, separator), nil
}

// formatted prints a line of JSON by the template. Its texts are cleaned; only --json is exact.
func (u *ui) formatted(line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var object any
	if err := d.Decode(&object); err != nil {
		return err
	}
	object = plainValue(object)
	var b bytes.Buffer
	if err := u.app.format.Execute(&b, object); err != nil {
		return formatError(err, object)
	}
	fmt.Fprintf(u.out, "%s\n", b.Bytes())
	return nil
}

// plainValue returns a value of JSON for a template: clean texts, whole numbers as such, and
// nothing in place of null.
func plainValue(v any) any {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return wire.Clean(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = plainValue(v[i])
		}
	case map[string]any:
		fields := make(map[string]any, len(v))
		for name, value := range v {
			fields[wire.Clean(name)] = plainField(name, value)
		}
		return fields
	}
	return v
}

// plainField is plainValue for a field. A template can range over the backends and the devices of
// a node, and index them, also where they are null.
func plainField(name string, v any) any {
	several, isMap := v.(map[string]any)
	switch {
	case name == "backends" && v == nil:
		return noList(nil)
	case name == "devices" && v == nil:
		return counts(nil)
	case name == "devices" && isMap:
		devices := counts{}
		for device, count := range several {
			devices[wire.Clean(device)], _ = plainValue(count).(int64)
		}
		return devices
	case name == "labels" && isMap:
		labels := make(map[string]string, len(several))
		for key, value := range several {
			labels[wire.Clean(key)] = fmt.Sprint(plainValue(value))
		}
		return labels
	}
	return plainValue(v)
}

// noList is null in the place of a list. It is printed as nothing.
type noList []any

// String implements [fmt.Stringer].
func (noList) String() string { return "" }

// counts has a number for each name, and 0 for any other. Null is printed as nothing.
type counts map[string]int64

// String implements [fmt.Stringer].
func (c counts) String() string {
	if c == nil {
		return ""
	}
	return fmt.Sprint(map[string]int64(c))
}

var noEntry = regexp.MustCompile(`map has no entry for key "([^"]*)"`)

// formatError says what is wrong with the template for this object.
func formatError(err error, object any) error {
	fields, _ := object.(map[string]any)
	if key := noEntry.FindStringSubmatch(err.Error()); key != nil {
		names := slices.Sorted(maps.Keys(fields))
		return withSuggestion(fmt.Errorf("%w: --format: there is no field %q", vault.ErrInvalid, key[1]), key[1], names, "The fields: "+strings.Join(names, ", "))
	}
	_, problem, _ := strings.Cut(err.Error(), ">: ")
	return fmt.Errorf("%w: --format does not fit what is printed: %s", vault.ErrInvalid, problem)
}
