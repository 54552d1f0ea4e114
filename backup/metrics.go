package backup

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// WriteMetrics replaces the file at path by the state of the backups, as Prometheus reads it
// from a text file. Everybody may read the file; it holds no secret. After an error the old file
// stands.
func (h Health) WriteMetrics(path string) error {
	if err := vault.CheckOutput(path, ""); err != nil {
		return err
	}
	if err := durable.Replace(publicFiles{}, path, h.metrics()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}

// publicFiles is the file system, where a new file can be read by everybody.
type publicFiles struct{ durable.OS }

// CreateNew implements [durable.FS].
func (publicFiles) CreateNew(path string) (durable.File, error) {
	f, err := durable.OS{}.CreateNew(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
		f.Close()
		return nil, err
	}
	return f, nil
}

// metrics returns the state in the text format of Prometheus.
func (h Health) metrics() []byte {
	var b bytes.Buffer
	gauge := func(name, help string) func(labels string, value any) {
		fmt.Fprintf(&b, "# HELP rbee_vault_backup_%[1]s %[2]s\n# TYPE rbee_vault_backup_%[1]s gauge\n", name, help)
		return func(labels string, value any) { fmt.Fprintf(&b, "rbee_vault_backup_%s%s %v\n", name, labels, value) }
	}
	gauge("status_timestamp_seconds", "When this was written.")("", seconds(h.At))
	problem := gauge("problem", "Whether something is not as it should be.")
	for _, kind := range ProblemKinds {
		problem(fmt.Sprintf(`{kind="%s"}`, kind), number(h.Has(kind)))
	}
	proven := gauge("proven_timestamp_seconds", "When a restore that was tried out last worked; 0 for never.")
	proven("", seconds(h.Proven))
	if h.Last == nil {
		return b.Bytes()
	}
	gauge("sequence", "The number of the newest backup.")("", h.Last.Sequence)
	gauge("created_timestamp_seconds", "When the newest backup was made.")("", seconds(h.Last.Created))
	gauge("as_of_timestamp_seconds", "The newest moment whose state the newest backup is known to hold.")("", seconds(h.Last.AsOf()))
	gauge("size_bytes", "The size of the newest backup.")("", h.Last.Size)
	gauge("nodes", "The number of nodes in the newest backup.")("", h.Last.Nodes)
	copies := gauge("copy", "A copy of the newest backup, with its state.")
	for i, c := range h.Last.Copies {
		copies(fmt.Sprintf(`{target="%s",name="%s",state="%s"}`, labelValue(c.Target), labelValue(c.Name), h.States[i]), 1)
	}
	if h.Drill != nil {
		gauge("drill_seconds", "How long the last drill took.")("", h.Drill.Took.Seconds())
	}
	return b.Bytes()
}

// labelValue escapes a text as the text format needs it.
func labelValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "?"))
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
