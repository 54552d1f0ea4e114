package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestFormat: a template sees the fields of --json, in clean text; what it cannot have is named.
func TestFormat(t *testing.T) {
	object := map[string]any{"name": "n1", "size": 1700000000000, "share": 0.5, "key": nil, "list": []string{"a", "b\x1b"}, "labels": map[string]string{"rack": "3"}, "backends": nil, "devices": map[string]int{"cuda": 2}, "found": map[string]any{"devices": nil},
		"odd": map[string]any{"a\x1b": 1, "devices": map[string]int{"b\x1b": 2}, "labels": map[string]string{"c\x1b": "3"}}}
	for _, c := range []struct{ template, want, failure string }{
		{`{{.name}} {{.size}} {{.share}}{{.key}}`, "n1 1700000000000 0.5", ""},
		{`{{join .list ","}} {{json .list}}`, `a,b? ["a","b?"]`, ""},
		{`{{index .labels "rack"}}{{index .labels "zone"}}`, "3", ""},
		{`{{if .key}}key{{else}}none{{end}}`, "none", ""},
		{`{{join .key ","}}`, "", ""},
		{`{{range .backends}}x{{end}}{{.backends}}{{join .backends ","}}{{json .backends}}`, "null", ""},
		{`{{range .list}}<{{.}}>{{end}}{{.list}}`, "<a><b?>[a b?]", ""},
		{`{{index .devices "cuda"}}{{index .devices "metal"}}{{.devices.cuda}} {{json .devices}}`, `202 {"cuda":2}`, ""},
		{`{{index .found.devices "cuda"}}{{.found.devices}}{{range .found.devices}}x{{end}}{{json .found.devices}}`, "0null", ""},
		{`{{.odd}}`, "map[a?:1 devices:map[b?:2] labels:map[c?:3]]", ""},
		{`{{.nme}}`, "", `there is no field "nme"`},
		{`{{join .name ","}}`, "", "does not fit"},
		{`{{.name`, "", "a template such as"},
	} {
		var out, errs bytes.Buffer
		a := &app{}
		a.ui = newUI(t.Context(), a, &out, &errs)
		err := (&formatFlag{app: a}).Set(c.template)
		if err == nil {
			err = errors.Join(a.ui.object(object), a.ui.misfit)
		} else {
			err = flagError(nil, newRoot(a).ParseFlags([]string{"--format", c.template}))
		}
		a.ui.flush()
		if got := strings.TrimSuffix(out.String(), "\n"); c.failure == "" && got != c.want || (err == nil) != (c.failure == "") || err != nil && !strings.Contains(err.Error(), c.failure) {
			t.Errorf("%s: %q, %v", c.template, got, err)
		}
		if a.ui.misfit != nil && !strings.Contains(out.String(), `"name":"n1"`) {
			t.Errorf("%s: the object is lost: %s", c.template, &out)
		}
	}
}
