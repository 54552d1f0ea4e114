package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrInUse: somebody answers at the socket already.
var ErrInUse = errors.New("another process answers at the socket")

// Listen makes the socket at path for our user alone: 0600, in a directory of 0700, which
// it makes where it is missing. It replaces a socket that nobody answers at. One that
// somebody does answer at is [ErrInUse]; a file of another kind, or a directory that is
// open to others, is an error. Closing the listener removes the socket.
func Listen(path string) (*net.UnixListener, error) {
	return listenAs(path, 0o700, 0o600)
}

// ListenToAll is Listen for a socket that every user of the machine can connect to: 0666, in
// a directory of 0755. The caller asks each peer who it is; see [PeerOf].
func ListenToAll(path string) (*net.UnixListener, error) {
	return listenAs(path, 0o755, 0o666)
}

func listenAs(path string, dirMode, mode fs.FileMode) (*net.UnixListener, error) {
	l, err := listen(path, dirMode, mode)
	if err != nil {
		return nil, fmt.Errorf("listen at %q: %w", path, err)
	}
	return l, nil
}

func listen(path string, dirMode, mode fs.FileMode) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&^dirMode != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
		return nil, fmt.Errorf("the directory %q is not ours alone", dir)
	}
	// Two that begin at the same time would each remove the other's socket.
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the directory %q: %w", dir, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Until here the umask or the directory kept others out.
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket that nobody answers at. What is none, it leaves.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file is there that is not a socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // a full queue, too, is somebody's
		return ErrInUse
	}
	return os.Remove(path)
}

// Inherited returns the one socket that systemd passes to this process (sd_listen_fds(3)),
// or nil where it passes none. getenv is [os.Getenv]. Call it once: the descriptor becomes
// the listener's.
func Inherited(getenv func(string) string) (*net.UnixListener, error) {
	const firstFD = 3
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	if n := getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("the service manager passes %.20q sockets, and one is needed", n)
	}
	f := os.NewFile(firstFD, "LISTEN_FD_3")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket of the service manager: %w", err)
	}
	unix, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("the socket of the service manager is not a unix stream socket")
	}
	return unix, nil
}
