package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rbee-keeper/rbee-vault/"

// TestImports keeps the directions between the packages, and each of the outside
// libraries that will be replaced one day in its one place.
func TestImports(t *testing.T) {
	allowed := map[string][]string{
		"keyring":            {},
		"internal/durable":   {},
		"internal/wire":      {},
		"internal/sqlcipher": {"internal/durable"},
		"identity":           {"internal/wire"},
		"vault":              {"identity", "keyring", "internal/durable", "internal/sqlcipher", "internal/wire"},
		"registry":           {"vault", "identity", "internal/wire"},
		"backup":             {"registry", "vault", "identity", "internal/durable", "internal/wire"},
		"cmd/rbee-vault":     {"registry", "vault", "backup", "keyring", "identity", "internal/wire"},
	}
	// The one place of a library: a package, or a file of one.
	onePlace := map[string]string{
		"github.com/mutecomm/go-sqlcipher/v4": "internal/sqlcipher/",
		"github.com/zalando/go-keyring":       "keyring/gokeyring.go",
	}
	onlyCmd := []string{"github.com/spf13/cobra", "golang.org/x/term", "charm.land/lipgloss/v2", "github.com/schollz/progressbar/v3"}

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
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module); ok {
				if want, ok := allowed[name]; ok && !slices.Contains(want, ours) {
					t.Errorf("%s imports %s", name, ours)
				}
			}
			if slices.Contains(onlyCmd, imported) && name != "cmd/rbee-vault" {
				t.Errorf("%s imports %s", name, imported)
			}
		}
		for library, place := range onePlace {
			for _, f := range p.GoFiles {
				source, err := exec.Command("go", "list", "-f", "{{range .Imports}}{{.}}\n{{end}}", p.Dir+"/"+f).Output()
				if err != nil {
					continue // not for this system
				}
				if slices.Contains(strings.Fields(string(source)), library) && !strings.HasPrefix(name+"/"+f, place) {
					t.Errorf("%s/%s imports %s", name, f, library)
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
