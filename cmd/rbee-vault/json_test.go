package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// jsonSchema is docs/json.schema.json.
type jsonSchema struct {
	compiler *jsonschema.Compiler
	commands map[string]any

	mu       sync.Mutex // guards what follows: a schema is compiled when it is first needed
	compiled map[string]*jsonschema.Schema
}

const schemaURL = "https://example.org/json.schema.json"

var readJSONSchema = sync.OnceValues(func() (*jsonSchema, error) {
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		return nil, err
	}
	s := &jsonSchema{compiler: jsonschema.NewCompiler(), compiled: map[string]*jsonschema.Schema{}}
	s.commands, _ = document.(map[string]any)["commands"].(map[string]any)
	return s, s.compiler.AddResource(schemaURL, document)
})

// schemaFile is an absolute path: scripts run elsewhere.
var schemaFile = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return dir + "/../../docs/json.schema.json"
}()

// objects are the schemas of what a command prints.
func (s *jsonSchema) objects(command string) (refs []string) {
	list, _ := s.commands[command].([]any)
	for _, ref := range list {
		refs = append(refs, ref.(map[string]any)["$ref"].(string))
	}
	return refs
}

// check compares a line with schemas, of which one must fit.
func (s *jsonSchema) check(line string, refs ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	if err != nil {
		return fmt.Errorf("no JSON: %s", line)
	}
	var all []error
	for _, ref := range refs {
		schema := s.compiled[ref]
		if schema == nil {
			if schema, err = s.compiler.Compile(schemaURL + ref); err != nil {
				return err
			}
			s.compiled[ref] = schema
		}
		if err = schema.Validate(value); err == nil {
			return nil
		}
		all = append(all, err)
	}
	return fmt.Errorf("%s\nis not what docs/json.schema.json says: %w", line, errors.Join(all...))
}

// checkOutput compares what a command printed with the schema of its JSON.
func checkOutput(args []string, code int, stdout, stderr string) error {
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	if !slices.Contains(args[:end], "--json") {
		return nil
	}
	s, err := readJSONSchema()
	if err != nil {
		return err
	}
	cmd, _, err := newRoot(&app{ui: &ui{}}).Find(slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == "--json" || arg == "--no-input" || arg == "--quiet" }))
	if err != nil {
		return nil // an unknown command is an error of its own
	}
	command := strings.TrimPrefix(cmd.CommandPath(), "rbee-vault ")
	for line := range strings.Lines(stdout) {
		if err := s.check(line, s.objects(command)...); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	if code == exitOK || cmd.Name() == "completion" {
		return nil
	}
	for line := range strings.Lines(stderr) {
		if err := s.check(line, "#/$defs/error", "#/$defs/warning"); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// withoutJSON are commands that print nothing of their own with --json: text, another program's
// output, or files.
var withoutJSON = []string{
	"ssh", "ui", "completion", "agent lock", "agent unlock", "node export", "setup",
}

// TestJSONMachine: what a node with GPUs has is in the schema. No node of the tests has any.
func TestJSONMachine(t *testing.T) {
	s, err := readJSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	found := checked{machine: &hive.Machine{Devices: map[string][]string{hive.BackendCUDA: {"GPU 0", "GPU 1"}}}}
	found.Outcome = hive.Online
	line, err := wire.Marshal(found.json())
	if err != nil || !strings.Contains(string(line), `"devices":{"cpu":1,"cuda":2},"found":{"cuda":["GPU 0","GPU 1"]}`) {
		t.Errorf("%s, %v", line, err)
	}
	if err := s.check(string(line), s.objects("check")...); err != nil {
		t.Error(err)
	}
}

// TestJSONSchema: each command that prints JSON is in the schema, and no other.
func TestJSONSchema(t *testing.T) {
	s, err := readJSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		name := strings.TrimPrefix(cmd.CommandPath(), "rbee-vault ")
		known[name] = true
		if cmd.Runnable() && !cmd.HasSubCommands() && !cmd.IsAdditionalHelpTopicCommand() && s.commands[name] == nil && !slices.Contains(withoutJSON, name) {
			t.Errorf("docs/json.schema.json does not say what %q prints", name)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{ui: &ui{}}))
	for name := range s.commands {
		if !known[name] {
			t.Errorf("docs/json.schema.json names %q, which is no command", name)
		}
	}
	for line, fits := range map[string]bool{
		`{"socket":"/run/s"}`:           true,
		`{"socket":"/run/s","more":1}`:  false,
		`{"socket":1}`:                  false,
		`{}`:                            false,
		`{"socket":"/run/s"} {"and":1}`: false,
	} {
		if err := s.check(line, s.objects("agent")...); (err == nil) != fits {
			t.Errorf("%s: %v", line, err)
		}
	}
}
