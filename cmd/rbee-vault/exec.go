package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

type execOptions struct {
	selectOptions
	parallel     int
	timeout      time.Duration
	loginTimeout time.Duration
}

func (o *execOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().IntVar(&o.parallel, "parallel", 16, "run on `N` nodes at once")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "interrupt the command on a node after this time (default: never)")
	cmd.Flags().DurationVar(&o.loginTimeout, "login-timeout", hive.DefaultTimeout, "time for the login to a node")
}

func newExec(a *app) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec NODE|GLOB... -- COMMAND [ARGUMENT...]",
		Short: "Run a command on nodes",
		Long: `Run a command on nodes, with the keys and pinned host keys of the vault. As with ssh, the
words of the command are joined by spaces and given to the shell of the node's user. The
command reads nothing.

Each line of output begins with the node's name. With --json, each node gives one object:
node, exit_status, stdout, stderr, duration_ms, and error where the command did not run to
its end. Ctrl-C interrupts the command on all nodes. If the command failed on some nodes,
the exit code is 3.`,
		Example: `  rbee-vault exec 'hive-*' -- uptime
  rbee-vault exec --where backend=cuda --json -- nvidia-smi -L`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), a, o, args, cmd.ArgsLenAtDash())
		},
	}
	o.register(cmd)
	return cmd
}

func runExec(ctx context.Context, a *app, o execOptions, args []string, dash int) error {
	if dash < 0 || dash == len(args) {
		return usagef("which command? Give it behind --")
	}
	if o.parallel < 1 {
		return usagef("--parallel must be at least 1")
	}
	selection, err := o.parseSome(args[:dash])
	if err != nil {
		return err
	}
	command := strings.Join(args[dash:], " ")
	return a.withSession(ctx, func(s *registry.Session) error {
		var names []string
		err := s.Use(ctx, func(r *registry.Registry) (err error) {
			names, err = selection.names(ctx, a, r)
			return err
		})
		if err != nil {
			return err
		}
		d := &sessionDialer{session: s, timeout: o.loginTimeout}
		return execAll(ctx, a, d, o, names, command)
	})
}

// execAll runs the command on the nodes, some at a time. One that fails does not keep it
// from the others.
func execAll(ctx context.Context, a *app, d nodeDialer, o execOptions, names []string, command string) error {
	out := &nodeOutput{ui: a.ui, json: a.json}
	for _, name := range names {
		out.width = max(out.width, len(name))
	}
	var group errgroup.Group
	group.SetLimit(o.parallel)
	for _, name := range names {
		group.Go(func() error {
			out.done(execOne(ctx, d, o, out, name, command))
			return nil
		})
	}
	group.Wait()
	if err := cmp.Or(out.err, ctx.Err()); err != nil {
		return err
	}
	if out.failed > 0 {
		return fmt.Errorf("%w: the command failed on %d of %d nodes", errPartial, out.failed, len(names))
	}
	return nil
}

// execution is what a command did on a node.
type execution struct {
	node     string
	exit     hive.Exit
	stdout   *nodeWriter
	stderr   *nodeWriter
	duration time.Duration
	err      error
}

func execOne(ctx context.Context, d nodeDialer, o execOptions, out *nodeOutput, name, command string) execution {
	e := execution{node: name, stdout: out.writer(name, false), stderr: out.writer(name, true)}
	conn, result, err := d.DialProbe(ctx, name)
	if err == nil {
		err = result.Err
	}
	if err != nil {
		e.err = err
		return e
	}
	defer conn.Close()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	begun := time.Now()
	e.exit, e.err = conn.Run(ctx, command, e.stdout, e.stderr)
	e.duration = time.Since(begun)
	return e
}

type executionJSON struct {
	Node       string  `json:"node"`
	ExitStatus *int    `json:"exit_status"` // null: it did not run to its end
	Signal     *string `json:"signal"`
	Stdout     string  `json:"stdout"`
	Stderr     string  `json:"stderr"`
	Truncated  bool    `json:"truncated"` // the rest of the output is left out
	DurationMS int64   `json:"duration_ms"`
	Error      *string `json:"error"`
}

// maxOutput is how many bytes of a node's output are kept for JSON.
const maxOutput = 8 << 20

// nodeOutput prints the output of many nodes, line by line or as an object for each.
type nodeOutput struct {
	ui    *ui
	json  bool
	width int // of the longest name

	mu     sync.Mutex // guards what follows, and the terminal
	failed int
	err    error
}

func (o *nodeOutput) writer(node string, isErr bool) *nodeWriter {
	return &nodeWriter{out: o, node: node, isErr: isErr}
}

// line prints one line of a node.
func (o *nodeOutput) line(node, text string, isErr bool) {
	text = wire.Clean(expandTabs(text))
	line := fmt.Sprintf("%-*s  %s\n", o.width, node, text)
	if !o.ui.pretty {
		line = node + "\t" + text + "\n"
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ui.pretty || isErr {
		o.ui.flush() // keeps the order of the output
	}
	if isErr {
		io.WriteString(o.ui.err, line)
	} else {
		io.WriteString(o.ui.out, line)
	}
}

// expandTabs replaces tabs by spaces, up to the next multiple of 8.
func expandTabs(text string) string {
	if !strings.Contains(text, "\t") {
		return text
	}
	var b strings.Builder
	column := 0
	for _, r := range text {
		if r == '\t' {
			n := 8 - column%8
			b.WriteString(strings.Repeat(" ", n))
			column += n
			continue
		}
		b.WriteRune(r)
		column++
	}
	return b.String()
}

// done reports the end of a command.
func (o *nodeOutput) done(e execution) {
	e.stdout.end()
	e.stderr.end()
	failed := e.err != nil || e.exit.Status != 0
	if !o.json && failed {
		text := fmt.Sprintf("exit status %d", e.exit.Status)
		if e.exit.Signal != "" {
			text = "ended by signal " + e.exit.Signal
		}
		if e.err != nil {
			text = e.err.Error()
		}
		o.line(e.node, "["+text+"]", true)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if failed {
		o.failed++
	}
	if o.json {
		if err := o.ui.object(e.json()); err != nil && o.err == nil {
			o.err = err
		}
	}
}

func (e execution) json() executionJSON {
	j := executionJSON{
		Node:       e.node,
		Stdout:     e.stdout.kept.String(),
		Stderr:     e.stderr.kept.String(),
		Truncated:  e.stdout.cut || e.stderr.cut,
		DurationMS: e.duration.Milliseconds(),
	}
	if e.err != nil {
		text := e.err.Error()
		j.Error = &text
	} else {
		j.ExitStatus = &e.exit.Status
	}
	if e.exit.Signal != "" {
		j.Signal = &e.exit.Signal
	}
	return j
}

// nodeWriter takes the output of a command on one node. It is for one goroutine.
type nodeWriter struct {
	out   *nodeOutput
	node  string
	isErr bool
	kept  bytes.Buffer // for JSON: the output; else a line that has not ended yet
	cut   bool
}

var _ io.Writer = (*nodeWriter)(nil)

// maxLine is the length from which on a line is printed in pieces.
const maxLine = 64 << 10

// Write implements [io.Writer].
func (w *nodeWriter) Write(p []byte) (int, error) {
	if w.out.json {
		room := maxOutput - w.kept.Len()
		w.cut = w.cut || len(p) > room
		w.kept.Write(p[:min(len(p), room)])
		return len(p), nil
	}
	w.kept.Write(p)
	for {
		data := w.kept.Bytes()
		n := bytes.IndexByte(data, '\n')
		if n < 0 && len(data) < maxLine {
			return len(p), nil
		}
		if n < 0 {
			n = len(data)
		}
		w.out.line(w.node, strings.TrimSuffix(string(data[:n]), "\r"), w.isErr)
		w.kept.Next(min(n+1, len(data)))
	}
}

// end prints a last line that does not end.
func (w *nodeWriter) end() {
	if !w.out.json && w.kept.Len() > 0 {
		w.out.line(w.node, w.kept.String(), w.isErr)
		w.kept.Reset()
	}
}
