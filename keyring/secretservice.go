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

// probe asks the Secret Service whether the collection that the keyring library will use is
// locked. Its connection ends with ctx. Errors: ErrNoBus, ErrNoProvider, ErrNoCollection; if
// ctx ends, any of them.
func probe(ctx context.Context) (locked bool, err error) {
	conn, err := connect(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if _, err := owner(ctx, conn); err != nil {
		return false, err
	}

	collection, err := collectionPath(ctx, conn)
	if err != nil {
		return false, err
	}

	var property dbus.Variant
	err = conn.Object(secretsName, collection).
		CallWithContext(ctx, getProperty, 0, secretsColl, "Locked").Store(&property)
	if err != nil {
		return false, fmt.Errorf("%w: %s", ErrNoCollection, errorText(err))
	}
	locked, ok := property.Value().(bool)
	if !ok {
		return false, fmt.Errorf("%w: Locked is not a boolean", ErrNoCollection)
	}
	return locked, nil
}

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
