package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// nasty holds terminal commands, line breaks, and marks that change the direction of
// writing.
const nasty = "a\x1b[31mb\nc\td\re\x7ff\u009b1mg\u202eh\u2066i\u200fj\u2028k\u061cl\xff"

func nastyTable() *table {
	t := newTable("A", "B")
	t.row(nasty, "b")
	return t
}

// TestOutputIsClean puts nasty into everything that the command prints.
func TestOutputIsClean(t *testing.T) {
	for name, test := range map[string]struct {
		lines int
		print func(u *ui)
	}{
		"table in a pipe":     {1, func(u *ui) { u.table(nastyTable()) }},
		"table on a terminal": {2, func(u *ui) { u.pretty = true; u.table(nastyTable()) }},
		"pairs":               {1, func(u *ui) { u.pairs([][2]string{{"a", nasty}}) }},
		"data":                {1, func(u *ui) { u.printf("%s\n", nasty) }},
		"info":                {2, func(u *ui) { u.info("%s\n%v", nasty, errors.New(nasty)) }},
		"warning":             {1, func(u *ui) { u.warn("%s %v", nasty, vault.SlotKind(nasty)) }},
		"debug":               {1, func(u *ui) { u.app.debug = true; u.logger().Debug(nasty, "k", nasty) }},
		"log":                 {1, func(u *ui) { u.logger().Warn(nasty, "k", nasty) }},
		"error":               {1, func(u *ui) { u.fail(errors.Join(errors.New(nasty), errors.New(nasty))) }},
		"hint": {2, func(u *ui) {
			u.fail(withHint(fmt.Errorf("%w: %s", vault.ErrInvalid, nasty), "%s", strings.ReplaceAll(nasty, "\n", " ")))
		}},
	} {
		var out, errs bytes.Buffer
		u := newUI(t.Context(), &app{}, &out, &errs)
		test.print(u)
		if err := u.flush(); err != nil {
			t.Fatal(err)
		}
		text := out.String() + errs.String()
		if lines := strings.Count(text, "\n"); lines != test.lines {
			t.Errorf("%s: %d lines: %q", name, lines, text)
		}
		if strings.Count(text, "\t") > 1 || strings.ContainsFunc(text, func(r rune) bool {
			return r != '\n' && r != '\t' && wire.Control(r) || r == unicode.ReplacementChar
		}) {
			t.Errorf("%s: %q", name, text)
		}
		if !strings.Contains(strings.ReplaceAll(text, ";", ""), "a?[31mb c d e?f?1mg?h?i?j?k?l?") {
			t.Errorf("%s lost text: %q", name, text)
		}
	}
	// JSON is exact: a terminal gets escapes.
	var out bytes.Buffer
	u := newUI(t.Context(), &app{json: true}, &out, &out)
	exact := strings.ToValidUTF8(nasty, "")
	if err := errors.Join(u.object(map[string]string{"k": exact}), u.flush()); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["k"] != exact {
		t.Errorf("%q, %v", back, err)
	}
	if strings.ContainsFunc(strings.TrimSuffix(out.String(), "\n"), wire.Control) {
		t.Errorf("JSON: %q", out.String())
	}
}

// TestCleanArgs: arguments that are not text do not change.
func TestCleanArgs(t *testing.T) {
	if got := fmt.Sprintf("%d %5.1f %s %q %v", cleanArgs([]any{1, 2.5, "a", "b\x1b", []string{"c\n"}})...); got != `1   2.5 a "b?" [c ]` {
		t.Error(got)
	}
}
