//go:build (dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd

package keyring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	secretsName    = "org.freedesktop.secrets"
	secretsService = "org.freedesktop.Secret.Service"
	secretsColl    = "org.freedesktop.Secret.Collection"
	busInterface   = "org.freedesktop.DBus"
	getProperty    = "org.freedesktop.DBus.Properties.Get"

	secretsPath  dbus.ObjectPath = "/org/freedesktop/secrets"
	loginPath    dbus.ObjectPath = "/org/freedesktop/secrets/collection/login"
	defaultAlias dbus.ObjectPath = "/org/freedesktop/secrets/aliases/default"
)

// secretService is a connection to the Secret Service. It ends with the context of probe. The
// caller closes it.
type secretService struct {
	conn       *dbus.Conn
	collection dbus.ObjectPath // that the keyring library uses
	locked     bool            // whether it is locked
}

// probe connects to the Secret Service and asks for the collection that the keyring library will
// use. Errors: ErrNoBus, ErrNoProvider, ErrNoCollection; if ctx ends, any of them.
func probe(ctx context.Context) (s *secretService, err error) {
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if _, err := owner(ctx, conn); err != nil {
		return nil, err
	}
	s = &secretService{conn: conn}
	if s.collection, err = collectionPath(ctx, conn); err != nil {
		return nil, err
	}
	var property dbus.Variant
	if err := answer(s.call(ctx, s.collection, getProperty, secretsColl, "Locked"), &property); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrNoCollection, errorText(err))
	}
	locked, ok := property.Value().(bool)
	if !ok {
		return nil, fmt.Errorf("%w: Locked is not a boolean", ErrNoCollection)
	}
	s.locked = locked
	return s, nil
}

// close ends the connection, and with it the sessions.
func (s *secretService) close() { s.conn.Close() }

// call sends a call without waiting for the answer.
func (s *secretService) call(ctx context.Context, object dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return s.conn.Object(secretsName, object).GoWithContext(ctx, method, 0, nil, args...)
}

// openSession opens a session in which values are not encrypted.
func (s *secretService) openSession(ctx context.Context) *dbus.Call {
	return s.call(ctx, secretsPath, secretsService+".OpenSession", "plain", dbus.MakeVariant(""))
}

func (s *secretService) searchItems(ctx context.Context, service, account string) *dbus.Call {
	return s.call(ctx, s.collection, secretsColl+".SearchItems", map[string]string{"username": account, "service": service})
}

// answer waits for the answer to a call and stores its results.
func answer(c *dbus.Call, results ...any) error { return (<-c.Done).Store(results...) }

// collectionPath returns the collection that the keyring library uses: the one named login, or
// else the default one, by its alias. It never creates one. All errors are ErrNoCollection.
func collectionPath(ctx context.Context, conn *dbus.Conn) (dbus.ObjectPath, error) {
	var collections dbus.Variant
	err := conn.Object(secretsName, secretsPath).
		CallWithContext(ctx, getProperty, 0, secretsService, "Collections").Store(&collections)
	if err != nil {
		return "", fmt.Errorf("%w: %s", ErrNoCollection, errorText(err))
	}
	paths, ok := collections.Value().([]dbus.ObjectPath)
	if !ok {
		return "", fmt.Errorf("%w: Collections is not a list of paths", ErrNoCollection)
	}
	if slices.Contains(paths, loginPath) {
		return loginPath, nil
	}
	return defaultAlias, nil
}

// providerName returns the name and the pid of the process that owns the Secret Service.
func providerName(ctx context.Context) (string, error) {
	conn, err := connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	name, err := owner(ctx, conn)
	if err != nil {
		return "", err
	}
	var pid uint32
	err = conn.BusObject().CallWithContext(ctx, busInterface+".GetConnectionUnixProcessID", 0, name).Store(&pid)
	if err != nil {
		// The process ended meanwhile, or the bus does not know its pid.
		return "", fmt.Errorf("%w: %s", ErrNoProvider, errorText(err))
	}
	return fmt.Sprintf("%s (pid %d)", programName(pid), pid), nil
}

// programName returns the name of a process. The kernel keeps only the first 15 characters. The
// rest is taken from the command line, which the program itself can write.
func programName(pid uint32) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "unknown program"
	}
	name := strings.TrimSpace(string(comm))
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		program, _, _ := strings.Cut(string(cmdline), "\x00")
		program = program[strings.LastIndexByte(program, '/')+1:]
		if strings.HasPrefix(program, name) {
			return program
		}
	}
	return name
}

// connect returns a private connection to the session bus. It is closed when ctx ends, and by
// the caller. All errors are ErrNoBus.
//
// The address is looked up as in the library, but no dbus-launch is run if there is none. If
// the lookup finds an address below /run, it stores it in the environment. So after a success
// here the library finds an address too, and never has a reason to run a program.
func connect(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.SessionBusPrivateNoAutoStartup(dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrNoBus, errorText(err))
	}
	if err := conn.Auth(nil); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %s", ErrNoBus, errorText(err))
	}
	if err := conn.Hello(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %s", ErrNoBus, errorText(err))
	}
	return conn, nil
}

// owner returns the unique bus name of the Secret Service's owner. The bus may have to start it
// first. All errors are ErrNoProvider.
func owner(ctx context.Context, conn *dbus.Conn) (string, error) {
	get := func() (name string, err error) {
		err = conn.BusObject().CallWithContext(ctx, busInterface+".GetNameOwner", 0, secretsName).Store(&name)
		return name, err
	}
	name, err := get()
	if err != nil {
		err = conn.BusObject().CallWithContext(ctx, busInterface+".StartServiceByName", 0, secretsName, uint32(0)).Err
		if err == nil {
			name, err = get()
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", ErrNoProvider, errorText(err))
	}
	return name, nil
}

// errorText returns the part of err that may be shown. If the error came over the bus, that is
// only its name: the rest is free text of another program, which might contain the value.
func errorText(err error) string {
	var remote dbus.Error
	if errors.As(err, &remote) {
		return remote.Name
	}
	return err.Error()
}
