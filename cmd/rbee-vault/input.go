package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// input is a file, a FIFO or standard input that the command reads. A Read returns
// when ctx ends, even if the other end of a pipe does nothing.
type input struct {
	ctx     context.Context
	f       io.Reader
	buf     []byte // for the goroutine that reads, which may outlive a Read
	regular bool   // a Read never blocks
	keep    bool   // Close leaves f open
}

// openInput opens a file. It blocks on a FIFO until somebody writes to it, or ctx ends.
func openInput(ctx context.Context, path string) (*input, error) {
	if err := checkInput(path); err != nil {
		return nil, err
	}
	f, err := identity.Await(ctx, func() (*os.File, error) { return os.Open(path) })
	if err != nil {
		return nil, err
	}
	return newInput(ctx, f), nil
}

// checkInput refuses what openInput would not open.
func checkInput(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&fs.ModeDevice != 0 {
		return fmt.Errorf("%w: %q is not a file that can be read", vault.ErrInvalid, path)
	}
	return vault.CheckNotOpen(path)
}

// openArgument opens the file that an argument names, or standard input for '-'. what
// names the content in errors.
func (a *app) openArgument(ctx context.Context, file, what string) (*input, error) {
	if file == "-" {
		return a.takeStdin(ctx, what)
	}
	return openInput(ctx, file)
}

// takeStdin gives standard input to one reader only.
func (a *app) takeStdin(ctx context.Context, what string) (*input, error) {
	if a.stdinTaken != "" {
		return nil, fmt.Errorf("%w: %s and %s cannot both read standard input", vault.ErrInvalid, a.stdinTaken, what)
	}
	a.stdinTaken = what
	in := newInput(ctx, a.stdin)
	in.keep = true
	return in, nil
}

// checkRegular refuses a FIFO, a device, a socket or a directory, without opening
// it. A missing file is not an error here.
func checkRegular(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return notRegular(path)
	}
	return nil
}

func notRegular(path string) error {
	return fmt.Errorf("%w: %q is not a regular file", vault.ErrInvalid, path)
}

func newInput(ctx context.Context, f io.Reader) *input {
	in := &input{ctx: ctx, f: f}
	if file, ok := f.(*os.File); ok {
		info, err := file.Stat()
		in.regular = err == nil && info.Mode().IsRegular()
	}
	return in
}

// Read implements [io.Reader].
func (in *input) Read(p []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	if in.regular {
		return in.f.Read(p)
	}
	if in.buf == nil {
		in.buf = make([]byte, 64<<10)
	}
	buf := in.buf[:min(len(p), len(in.buf))]
	n, err := identity.Await(in.ctx, func() (int, error) { return in.f.Read(buf) })
	if in.ctx.Err() != nil {
		in.buf = nil // the goroutine still reads into it
		return 0, in.ctx.Err()
	}
	copy(p, buf[:n])
	clear(buf[:n]) // it may be a secret
	return n, err
}

// Close implements [io.Closer].
func (in *input) Close() error {
	f, ok := in.f.(io.Closer)
	if !ok || in.keep || in.ctx.Err() != nil && !in.regular {
		return nil // closing would wait for the Read that hangs
	}
	return f.Close()
}

// readInput reads all of r, which may have at most max bytes. The caller wipes a secret.
func readInput(r io.Reader, max int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%w: over %d bytes", vault.ErrInvalid, max)
	}
	if err != nil {
		clear(data)
		return nil, err
	}
	return data, nil
}

// spool copies a pipe into a file without a name, so that no lock is held while the data
// comes in, which may take for ever. The data is ciphertext, but still private.
func spool(r io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "rbee-vault-") // mode 0600
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err == nil {
		_, err = io.Copy(f, r)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("copy to a temporary file: %w", err)
	}
	return f, nil
}

// output writes to a pipe that perhaps nobody reads. After ctx has ended, a Write waits a
// moment longer and gives up.
type output struct {
	ctx context.Context
	w   io.Writer
}

// outputGrace is how long a reader gets to take the last lines.
const outputGrace = time.Second

// newOutput wraps a writer that may block. A terminal or a regular file does not.
func newOutput(ctx context.Context, w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		if err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
			return w
		}
	}
	return output{ctx, w}
}

// Write implements [io.Writer].
func (o output) Write(p []byte) (int, error) {
	own := append([]byte(nil), p...) // the goroutine may outlive the call
	late, cancel := context.WithCancel(context.WithoutCancel(o.ctx))
	defer cancel()
	stop := context.AfterFunc(o.ctx, func() { time.AfterFunc(outputGrace, cancel) })
	defer stop()
	return identity.Await(late, func() (int, error) { return o.w.Write(own) })
}

// pluginPrefix begins the name of every age plugin's program.
const pluginPrefix = "age-plugin-"

// endPlugins kills the age plugins that this process has started: the command would wait
// for a plugin that hangs, and the plugin would outlive it. The age library offers no
// other way. Without /proc, plugins are left running.
func endPlugins() {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// 1234 (age-plugin-name) S 1200 ...: pid, name (cut), state, parent
		head, rest, ok := strings.Cut(string(stat), ") ")
		number, name, named := strings.Cut(head, " (")
		fields := strings.Fields(rest)
		if !ok || !named || !strings.HasPrefix(name, pluginPrefix) || len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		if pid, err := strconv.Atoi(number); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
