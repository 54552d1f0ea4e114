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

	// patience limits every wait for a daemon. Usually a wait takes a tenth of a second.
	patience = 30 * time.Second
)

// busConfig configures a session bus that offers only the services that a test adds. The usual
// bus would start a stopped keyring again, and a prompt might appear on a desktop.
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

// Session is a D-Bus session bus, with or without a gnome-keyring of its own. Only the
// goroutine of the test may call its methods.
type Session struct {
	dir      string // home and sockets; short, because a socket's path has at most 107 bytes
	address  string
	bus      *process
	provider *process // nil while there is none
}

// Start runs a session bus with an unlocked, empty gnome-keyring, and makes this process use it
// (DBUS_SESSION_BUS_ADDRESS). Everything ends with the test.
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
	t.Cleanup(dropSharedConnection) // runs before the bus and the variable are gone
	return s
}

// dropSharedConnection ends the connection that the keyring library shares, so that its next
// call uses the address that is set then. A program must not close it, because others may use
// it; in a test there are no others. Calls that still wait on it end.
func dropSharedConnection() {
	if conn, err := dbus.SessionBus(); err == nil {
		conn.Close()
	}
}

// Address returns the address of the bus.
func (s *Session) Address() string { return s.address }

// Env returns the variables that make a child process use the session.
func (s *Session) Env() []string {
	return []string{
		"DBUS_SESSION_BUS_ADDRESS=" + s.address,
		"XDG_RUNTIME_DIR=" + filepath.Join(s.dir, "run"),
	}
}

// daemonEnv returns the whole environment of our daemons. It has nothing of the user's session.
func (s *Session) daemonEnv() []string {
	env := append(s.Env(), "HOME="+filepath.Join(s.dir, "home"), "PATH="+os.Getenv("PATH"), "LC_ALL=C")
	return slices.DeleteFunc(env, func(v string) bool { return v == "DBUS_SESSION_BUS_ADDRESS=" })
}

// Restart kills gnome-keyring, if it runs, and starts it again on the same files, unlocked.
func (s *Session) Restart(t testing.TB) {
	t.Helper()
	s.StopProvider(t)
	s.startProvider(t, password, false)
}

// RestartLocked is Restart with a wrong password: the collection exists and is locked. A prompt
// to unlock it cannot be shown.
func (s *Session) RestartLocked(t testing.TB) {
	t.Helper()
	s.StopProvider(t)
	s.startProvider(t, "a wrong password", true)
}

// RestartEmpty is Restart after a loss of the files: there is no login collection and no
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

// StopBus kills the bus while others use it. No other method works after that.
func (s *Session) StopBus(t testing.TB) {
	t.Helper()
	s.bus.kill()
}

// StopProvider kills gnome-keyring and waits until the bus has noticed it. After that nothing
// owns org.freedesktop.secrets until Restart or StartFake.
func (s *Session) StopProvider(t testing.TB) {
	t.Helper()
	if s.provider == nil {
		return
	}
	s.provider.kill() // as a crash would: it cannot save anything
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

// Plant stores an item as another program might. It has the attributes that a Get of service
// and account looks for, and one more, so that a Set does not replace it. Which of the two
// items a Get then returns depends on the keyring.
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

// OnDemand makes the bus start command when somebody asks for org.freedesktop.secrets and
// nothing owns it, as an installed gnome-keyring does. command is an absolute path with
// arguments. The started program ends with the test.
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

// killOwner kills the program that the bus started for org.freedesktop.secrets, if it still
// runs. It is a child of the bus or an orphan, so this process cannot wait for it.
func killOwner(address string) {
	conn, err := dbus.Connect(address)
	if err != nil {
		return // the bus is gone, and keyrings end with it
	}
	defer conn.Close()
	var pid uint32
	err = conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, secretsName).Store(&pid)
	if err != nil || int(pid) == os.Getpid() { // nothing owns it, or a Fake in this process does
		return
	}
	if p, err := os.FindProcess(int(pid)); err == nil {
		p.Kill()
	}
}

// startProvider starts gnome-keyring and waits until its login collection is locked or
// unlocked, as wanted.
func (s *Session) startProvider(t testing.TB, password string, locked bool) {
	t.Helper()
	provider := newProcess(t, s.daemonEnv(), "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	provider.cmd.Stdin = strings.NewReader(password) // without a newline, which would be a part of the password
	provider.start(t)
	s.provider = provider
	conn := dial(t, s.address)
	s.wait(t, func() error { return checkLogin(conn, locked) })
}

var errNoLogin = errors.New("no login collection")

// checkLogin returns nil if the keyring has a login collection that is locked or unlocked, as
// wanted. It never makes the bus start a keyring.
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

// wait calls check until it returns nil. D-Bus has no way to wait for most of these things.
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

// dial returns a connection for the test. It ends with the test.
func dial(t testing.TB, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatalf("connect to %s: %v", address, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
