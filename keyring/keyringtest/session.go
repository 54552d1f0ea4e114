package keyringtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	password = "the right password"

	// patience bounds every wait for a daemon; they take a tenth of a second.
	patience = 30 * time.Second
)

// busConfig is that of a session bus which offers no services but those that a test adds:
// on the usual one, a keyring that was stopped would be started again, and a prompt might
// find a desktop to appear on.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%[1]s/bus</listen>
  <servicedir>%[1]s/services</servicedir>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// Session is a D-Bus session bus with, or without, a gnome-keyring of its own. Its methods
// are for the one goroutine of the test.
type Session struct {
	dir      string // home and sockets; short, since a socket's path is limited to 107 bytes
	address  string
	bus      *process
	provider *process // nil while there is none
}

// Start runs a session bus and an unlocked, empty gnome-keyring on it, and points this
// process at them (DBUS_SESSION_BUS_ADDRESS). All of it ends with the test.
func Start(t testing.TB) *Session {
	t.Helper()
	s := StartBus(t)
	s.startProvider(t, password, false)
	return s
}

// StartBus is Start without a keyring: nothing on the bus owns org.freedesktop.secrets.
func StartBus(t testing.TB) *Session {
	t.Helper()
	base := os.TempDir()
	if len(base) > 40 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "keyring")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Session{dir: dir}
	for _, name := range []string{"home", "run", "services"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}

	s.bus = newProcess(t, s.daemonEnv(), "dbus-daemon", "--nofork", "--nosyslog", "--print-address=1", "--config-file="+config)
	s.address = s.bus.startAndReadLine(t)
	t.Cleanup(s.bus.kill)
	t.Cleanup(func() {
		if s.provider != nil {
			s.provider.kill()
		}
	})

	t.Setenv("DBUS_SESSION_BUS_ADDRESS", s.address)
	dropSharedConnection()
	t.Cleanup(dropSharedConnection) // runs while bus and variable are still there
	return s
}

// dropSharedConnection ends the connection that the keyring library shares, so that its
// next call goes to the address of that moment. Closing it is forbidden to programs, as
// others may be using it; in a test we are the others. Calls that still wait on it end.
func dropSharedConnection() {
	if conn, err := dbus.SessionBus(); err == nil {
		conn.Close()
	}
}

// Address returns the address of the bus.
func (s *Session) Address() string { return s.address }

// Env returns the variables that point a child process at the session.
func (s *Session) Env() []string {
	return []string{
		"DBUS_SESSION_BUS_ADDRESS=" + s.address,
		"XDG_RUNTIME_DIR=" + filepath.Join(s.dir, "run"),
	}
}

// daemonEnv is all the environment that our daemons get: nothing of the user's session.
func (s *Session) daemonEnv() []string {
	env := append(s.Env(), "HOME="+filepath.Join(s.dir, "home"), "PATH="+os.Getenv("PATH"), "LC_ALL=C")
	return slices.DeleteFunc(env, func(v string) bool { return v == "DBUS_SESSION_BUS_ADDRESS=" })
}

// Restart kills gnome-keyring, if it runs, and starts it on the same files, unlocked.
func (s *Session) Restart(t testing.TB) {
	t.Helper()
	s.StopProvider(t)
	s.startProvider(t, password, false)
}

// RestartLocked is Restart with a wrong password: the collection is there, and locked. A
// prompt to unlock it finds nothing to show it.
func (s *Session) RestartLocked(t testing.TB) {
	t.Helper()
	s.StopProvider(t)
	s.startProvider(t, "a wrong password", true)
}

// RestartEmpty is Restart after the loss of the files: there is no login collection, and no
// default one. The next Restart makes a new, empty one.
func (s *Session) RestartEmpty(t testing.TB) {
	t.Helper()
	s.StopProvider(t)
	if err := os.RemoveAll(filepath.Join(s.dir, "home", ".local")); err != nil {
		t.Fatal(err)
	}
	s.provider = newProcess(t, s.daemonEnv(), "gnome-keyring-daemon", "--foreground", "--components=secrets")
	s.provider.start(t)
	conn := dial(t, s.address)
	s.wait(t, func() error {
		if err := checkLogin(conn, true); !errors.Is(err, errNoLogin) {
			return fmt.Errorf("want no login collection, have %v", err)
		}
		return nil
	})
}

// StopBus kills the bus under everybody's feet. No other method works after that.
func (s *Session) StopBus(t testing.TB) {
	t.Helper()
	s.bus.kill()
}

// StopProvider kills gnome-keyring and waits until the bus has seen it go. Nothing owns
// org.freedesktop.secrets then, until Restart or StartFake.
func (s *Session) StopProvider(t testing.TB) {
	t.Helper()
	if s.provider == nil {
		return
	}
	s.provider.kill() // as a crash would; it has no chance to save anything
	s.provider = nil
	conn := dial(t, s.address)
	s.wait(t, func() error {
		var owned bool
		err := conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, secretsName).Store(&owned)
		if err == nil && owned {
			err = errors.New("the killed keyring still owns its name")
		}
		return err
	})
}

// Lock locks the collection of the running gnome-keyring.
func (s *Session) Lock(t testing.TB) {
	t.Helper()
	conn := dial(t, s.address)
	var locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	err := conn.Object(secretsName, secretsPath).
		Call(serviceInterface+".Lock", 0, []dbus.ObjectPath{loginPath}).Store(&locked, &prompt)
	if err != nil {
		t.Fatalf("lock the keyring: %v", err)
	}
	s.wait(t, func() error { return checkLogin(conn, true) })
}

// Plant stores an item as another program might: under the attributes that a Get of service
// and account looks for, and one more, so that a Set does not replace it. Which of the two
// a Get then returns is up to the keyring.
func (s *Session) Plant(t testing.TB, service, account, value string) {
	t.Helper()
	conn := dial(t, s.address)
	var output dbus.Variant
	var session dbus.ObjectPath
	err := conn.Object(secretsName, secretsPath).
		Call(serviceInterface+".OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&output, &session)
	if err != nil {
		t.Fatalf("plant an item: %v", err)
	}
	properties := map[string]dbus.Variant{
		itemInterface + ".Label":      dbus.MakeVariant("planted"),
		itemInterface + ".Attributes": dbus.MakeVariant(map[string]string{"service": service, "username": account, "planted": "yes"}),
	}
	secret := secret{Session: session, Parameters: []byte{}, Value: []byte(value), ContentType: "text/plain"}
	var item, prompt dbus.ObjectPath
	err = conn.Object(secretsName, loginPath).
		Call(collectionInterface+".CreateItem", 0, properties, secret, false).Store(&item, &prompt)
	if err != nil {
		t.Fatalf("plant an item: %v", err)
	}
}

// OnDemand makes the bus start command, an absolute path with arguments, when somebody asks
// for org.freedesktop.secrets and nothing owns it, as an installed gnome-keyring does. What
// it started ends with the test.
func (s *Session) OnDemand(t testing.TB, command string) {
	t.Helper()
	t.Cleanup(func() { killOwner(s.address) })
	service := fmt.Sprintf("[D-BUS Service]\nName=%s\nExec=%s\n", secretsName, command)
	if err := os.WriteFile(filepath.Join(s.dir, "services", secretsName+".service"), []byte(service), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, s.address).BusObject().Call("org.freedesktop.DBus.ReloadConfig", 0).Err; err != nil {
		t.Fatalf("reload the bus's configuration: %v", err)
	}
}

// killOwner kills what the bus started for org.freedesktop.secrets, if it still runs. It is
// the bus's child, or an orphan, and not ours to wait for.
func killOwner(address string) {
	conn, err := dbus.Connect(address)
	if err != nil {
		return // the bus is gone, and keyrings end with it
	}
	defer conn.Close()
	var pid uint32
	err = conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, secretsName).Store(&pid)
	if err != nil || int(pid) == os.Getpid() { // nothing owns it, or a Fake of ours does
		return
	}
	if p, err := os.FindProcess(int(pid)); err == nil {
		p.Kill()
	}
}

// startProvider starts gnome-keyring and waits until its login collection is as locked as
// it should be.
func (s *Session) startProvider(t testing.TB, password string, locked bool) {
	t.Helper()
	provider := newProcess(t, s.daemonEnv(), "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	provider.cmd.Stdin = strings.NewReader(password) // all of it: a newline would be part of it
	provider.start(t)
	s.provider = provider
	conn := dial(t, s.address)
	s.wait(t, func() error { return checkLogin(conn, locked) })
}

var errNoLogin = errors.New("no login collection")

// checkLogin returns nil if the keyring has a login collection, locked or not as wanted. It
// never makes the bus start a keyring.
func checkLogin(conn *dbus.Conn, locked bool) error {
	var property dbus.Variant
	err := conn.Object(secretsName, secretsPath).
		Call(getProperty, dbus.FlagNoAutoStart, serviceInterface, "Collections").Store(&property)
	if err != nil {
		return err
	}
	paths, _ := property.Value().([]dbus.ObjectPath)
	if !slices.Contains(paths, loginPath) {
		return errNoLogin
	}
	err = conn.Object(secretsName, loginPath).
		Call(getProperty, dbus.FlagNoAutoStart, collectionInterface, "Locked").Store(&property)
	if err != nil {
		return err
	}
	if property.Value() != locked {
		return fmt.Errorf("the login collection's Locked is %v", property.Value())
	}
	return nil
}

// wait repeats check until it returns nil. D-Bus has no way to wait for most of these things.
func (s *Session) wait(t testing.TB, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.provider.gone():
			t.Fatalf("the keyring ended: %v\n%s", err, s.provider.output.String())
		case <-ctx.Done():
			t.Fatalf("after %v still: %v", patience, err)
		}
	}
}

// dial returns a connection of the test's own, which ends with it.
func dial(t testing.TB, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatalf("connect to %s: %v", address, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
