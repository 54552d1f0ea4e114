package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// configFile is the operator's file of settings on this machine.
type configFile struct {
	path   string // "": there is no place for one
	text   []byte
	values map[string]string
}

// maxConfig bounds the file, in bytes.
const maxConfig = 64 << 10

// configFile reads the file once.
func (a *app) configFile() (*configFile, error) {
	if a.file == nil && a.fileErr == nil {
		a.file, a.fileErr = readConfigFile()
	}
	return a.file, a.fileErr
}

// readConfigFile reads the file. One that is not there is empty.
func readConfigFile() (*configFile, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return &configFile{}, nil // neither $XDG_CONFIG_HOME nor $HOME
	}
	c := &configFile{path: filepath.Join(dir, "rbee-vault", "config.toml")}
	if c.text, err = readOwned(c.path); err != nil {
		return nil, err
	}
	if c.values, err = parseConfig(c.path, c.text); err != nil {
		return nil, err
	}
	return c, nil
}

// readOwned reads a file that nobody else can change, nor replace in its directories: it says
// which vault is opened, and how. One that is not there is empty.
func readOwned(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold it up
	// A service whose sandbox hides the home directory has no such file.
	if _, e := os.Stat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(e, fs.ErrPermission) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, notRegular(path)
	}
	if err := checkOwned(path, info); err != nil {
		return nil, err
	}
	dirs := []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))}
	if linked, err := filepath.EvalSymlinks(path); err == nil && linked != path {
		dirs = append(dirs, filepath.Dir(linked))
	}
	for _, dir := range dirs {
		if info, err = os.Stat(dir); err == nil {
			err = checkOwned(dir, info)
		}
		if err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%w: %s has more than %d bytes", vault.ErrInvalid, path, maxConfig)
	}
	return text, err
}

// checkOwned checks that a file or directory is ours or root's, and that nobody else can change
// it.
func checkOwned(path string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return &vault.InsecureError{Path: path, Rule: fmt.Sprintf("belongs to user %d, not to you (%d)", st.Uid, os.Geteuid()), Fix: fmt.Sprintf("sudo chown %d %s", os.Geteuid(), wire.Quote(path))}
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return &vault.InsecureError{Path: path, Rule: fmt.Sprintf("can be changed by others (mode %04o)", info.Mode().Perm()), Fix: "chmod go-w " + wire.Quote(path)}
	}
	return nil
}

// parseConfig returns the values of a file. path names it in errors.
func parseConfig(path string, text []byte) (map[string]string, error) {
	var raw map[string]any
	if err := toml.Unmarshal(text, &raw); err != nil {
		where := path
		if e, ok := errors.AsType[toml.ParseError](err); ok {
			where = fmt.Sprintf("%s, line %d", path, e.Position.Line)
		}
		return nil, withHint(fmt.Errorf("%w: %s is not as in TOML", vault.ErrInvalid, where), `A line is as in: ssh-user = "ops"`)
	}
	values := map[string]string{}
	for name, value := range raw {
		s, err := findSetting(name)
		if err != nil {
			return nil, withSuggestion(fmt.Errorf("%w: %s has %q, which is no setting", vault.ErrInvalid, path, name), name, settingNames(), "All of them: rbee-vault help settings")
		}
		switch v := value.(type) {
		case string:
			values[name] = v
		case int64:
			values[name] = strconv.FormatInt(v, 10)
		default:
			return nil, fmt.Errorf("%w: %s: %s must be a text or a whole number", vault.ErrInvalid, path, name)
		}
		if err := s.check(values[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return values, nil
}

// setInConfigFile writes the file with a value, "" to remove it. Other lines stay as they are. Of
// two that do so at once, each keeps what the other one wrote; one waits for the other up to wait.
func setInConfigFile(ctx context.Context, wait time.Duration, name, value string) error {
	dir, err := os.UserConfigDir()
	if err != nil {
		return fmt.Errorf("%w: no home directory ($HOME is not set), so there is no place for a file of settings", vault.ErrInvalid)
	}
	dir = filepath.Join(dir, "rbee-vault")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it the lock
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %q: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("the directory %q: %w", dir, vault.ErrLocked)
		case <-time.After(20 * time.Millisecond):
		}
	}
	c, err := readConfigFile()
	if err != nil {
		return err
	}
	return c.set(name, value)
}

// set writes the file with a value; the caller holds the lock.
func (c *configFile) set(name, value string) error {
	if value == "" && c.values[name] == "" {
		return fmt.Errorf("%s in %s: %w", name, c.path, registry.ErrNotFound)
	}
	text, err := editConfig(c.text, name, value)
	if err != nil {
		return err
	}
	want := maps.Clone(c.values)
	if delete(want, name); value != "" {
		want[name] = value
	}
	if got, err := parseConfig(c.path, text); err != nil || !maps.Equal(got, want) {
		return withHint(fmt.Errorf("%w: %s has %s in a form that this command cannot edit", vault.ErrInvalid, c.path, name), "Nothing was written. Change the file with an editor.")
	}
	path := c.path
	if linked, err := filepath.EvalSymlinks(path); err == nil {
		path = linked // the link stays
	}
	return durable.Replace(durable.OS{}, path, text)
}

// editConfig changes the line of a name, or adds it.
func editConfig(text []byte, name, value string) ([]byte, error) {
	var line bytes.Buffer
	if value != "" {
		if err := toml.NewEncoder(&line).Encode(map[string]string{name: value}); err != nil {
			return nil, err
		}
	}
	isLine := regexp.MustCompile(`^\s*["']?` + regexp.QuoteMeta(name) + `["']?\s*=`)
	var b strings.Builder
	done := value == ""
	for l := range strings.Lines(string(text)) {
		switch {
		case !isLine.MatchString(l):
			b.WriteString(l)
		case !done:
			b.Write(line.Bytes())
			done = true
		}
	}
	if !done {
		if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
			b.WriteByte('\n')
		}
		b.Write(line.Bytes())
	}
	return []byte(b.String()), nil
}
