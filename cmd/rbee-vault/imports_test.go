package main

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rbee-keeper/rbee-vault/"

// importsOnPage reads in ARCHITECTURE.md which of our packages each package may import.
func importsOnPage(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "<!-- imports -->\n```\n")
	list, _, _ = strings.Cut(list, "```")
	allowed := map[string][]string{}
	for line := range strings.Lines(list) {
		name, imports, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("ARCHITECTURE.md: %q", line)
		}
		allowed[strings.TrimSpace(name)] = strings.FieldsFunc(imports, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
	}
	if len(allowed) == 0 {
		t.Fatal("ARCHITECTURE.md lists no packages")
	}
	return allowed
}

// TestImports checks that packages import each other as ARCHITECTURE.md says, and that each
// library that will be replaced one day is imported in one place only.
func TestImports(t *testing.T) {
	allowed := importsOnPage(t)
	// The one place of a library, or of all below an address: a package, or files of one.
	onePlace := map[string]string{
		"github.com/aws/":                     "backup/store_s3",
		"github.com/mutecomm/go-sqlcipher/v4": "internal/sqlcipher/",
		"github.com/zalando/go-keyring":       "keyring/gokeyring.go",
		"github.com/boombuler/barcode/qr":     "cmd/rbee-vault/sheet_page.go",
	}
	onlyCmd := []string{"github.com/spf13/cobra", "golang.org/x/term", "charm.land/lipgloss/v2", "charm.land/bubbletea/v2", "github.com/schollz/progressbar/v3"}

	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles,CgoFiles,Dir", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
			GoFiles    []string
			Dir        string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		used := map[string]bool{}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module); ok {
				used[ours] = true
				if want, ok := allowed[name]; ok && !slices.Contains(want, ours) {
					t.Errorf("%s imports %s", name, ours)
				}
			}
			if slices.Contains(onlyCmd, imported) && name != "cmd/rbee-vault" {
				t.Errorf("%s imports %s", name, imported)
			}
		}
		for _, want := range allowed[name] {
			if !used[want] {
				t.Errorf("ARCHITECTURE.md says that %s imports %s; it does not", name, want)
			}
		}
		for _, f := range p.GoFiles {
			for _, imported := range importsOf(t, filepath.Join(p.Dir, f)) {
				for library, place := range onePlace {
					if (imported == library || strings.HasSuffix(library, "/") && strings.HasPrefix(imported, library)) && !strings.HasPrefix(name+"/"+f, place) && name != "internal/s3test" {
						t.Errorf("%s/%s imports %s", name, f, imported)
					}
				}
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("there is no package %s", name)
		}
	}
}

// importsOf returns what a file imports.
func importsOf(t *testing.T, file string) (imports []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range parsed.Imports {
		imports = append(imports, strings.Trim(spec.Path.Value, `"`))
	}
	return imports
}
