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
	if !ok && v != "" { // null
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
		for key := range v {
			v[key] = plainValue(v[key])
		}
		if labels, ok := v["labels"].(map[string]any); ok {
			v["labels"] = labelTexts(labels)
		}
	}
	return v
}

// labelTexts returns labels of which index gives "" where there is none.
func labelTexts(labels map[string]any) map[string]string {
	texts := make(map[string]string, len(labels))
	for key, value := range labels {
		texts[key] = fmt.Sprint(value)
	}
	return texts
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
