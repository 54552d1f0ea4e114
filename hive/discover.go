package hive

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// discoverScript runs on every node as it is: no field of the registry is in it.
//
//go:embed discover.sh
var discoverScript string

const (
	discoverFormat = "rbee-discover 1"
	// maxDiscovery bounds what is read of a node's answer.
	maxDiscovery = 64 << 10
	maxDevices   = 1024 // of one backend
)

// The backends that a node can have.
const (
	BackendCPU   = "cpu"
	BackendCUDA  = "cuda"
	BackendROCm  = "rocm"
	BackendMetal = "metal"
)

// Machine is what a node says of itself. Its texts are the node's: control characters are
// taken out, and nothing else is believed of them.
type Machine struct {
	OS      string // name, release and architecture
	CPU     string // model
	CPUs    uint32
	Memory  uint64              // bytes
	Disk    uint64              // free bytes where the login begins
	Devices map[string][]string // of each backend but the CPU: what the vendor's tool says
}

// Backends returns the backends of the machine, sorted, and how many devices each has, as
// the registry has them.
func (m Machine) Backends() ([]string, map[string]uint32) {
	devices := map[string]uint32{BackendCPU: 1}
	for backend, found := range m.Devices {
		devices[backend] = uint32(len(found))
	}
	return slices.Sorted(maps.Keys(devices)), devices
}

// ErrDiscovery: the node's answer cannot be read, or the script did not come to its end.
var ErrDiscovery = errors.New("discovery failed")

// Discover asks the node what it has. It ends with ctx. The error matches [ErrDiscovery],
// or is ctx's own.
func (c *Conn) Discover(ctx context.Context) (Machine, error) {
	session, err := c.NewSession()
	if err != nil {
		return Machine{}, fmt.Errorf("%w: %w", ErrDiscovery, err)
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	out := &limitedBuffer{left: maxDiscovery, exceeded: func() { session.Close() }}
	session.Stdin = strings.NewReader(discoverScript)
	session.Stdout = out
	session.Stderr = io.Discard
	err = session.Run("sh -s") // for whatever shell the user has
	switch {
	case ctx.Err() != nil:
		return Machine{}, ctx.Err()
	case out.left < 0:
		return Machine{}, fmt.Errorf("%w: it answers with more than %d bytes", ErrDiscovery, maxDiscovery)
	case err != nil && !errors.As(err, new(*ssh.ExitError)):
		return Machine{}, fmt.Errorf("%w: %w", ErrDiscovery, err)
	}
	return parseMachine(out.b.String())
}

// parseMachine reads what the script prints. Lines of a name that it does not know are
// skipped, and so is what a login shell prints before.
func parseMachine(text string) (Machine, error) {
	m := Machine{Devices: map[string][]string{}}
	begun, ended := false, false
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxDiscovery)
	for lines.Scan() {
		line := wire.Clean(strings.TrimSpace(lines.Text()))
		if !begun {
			begun = line == discoverFormat
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		switch name {
		case "os":
			m.OS = value
		case "cpu":
			m.CPU = value
		case "cpus":
			n, _ := strconv.ParseUint(value, 10, 32)
			m.CPUs = uint32(n)
		case "memory":
			m.Memory = parseBytes(value)
		case "disk":
			m.Disk = parseBytes(value)
		case BackendCUDA, BackendROCm, BackendMetal:
			if len(m.Devices[name]) < maxDevices {
				m.Devices[name] = append(m.Devices[name], value)
			}
		case "end":
			ended = true
		}
	}
	if !begun || !ended {
		return Machine{}, fmt.Errorf("%w: the script did not run to its end", ErrDiscovery)
	}
	return m, nil
}

// parseBytes reads a count of bytes; awk may write a large one in exponent form.
func parseBytes(text string) uint64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 0 || f > 1<<62 {
		return 0
	}
	return uint64(f)
}

// limitedBuffer takes so many bytes, and calls exceeded when there were more.
type limitedBuffer struct {
	b        bytes.Buffer
	left     int
	exceeded func()
}

// Write implements [io.Writer].
func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(p) > l.left {
		l.left = -1
		l.exceeded() // else the other side waits for room for ever
		return 0, io.ErrShortWrite
	}
	l.left -= len(p)
	return l.b.Write(p)
}
