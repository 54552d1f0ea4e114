package api

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// uidOf returns the user whose process is at the other end of a connection over the
// loopback interface, by the kernel's table of sockets.
func uidOf(c *net.TCPConn) (int, error) {
	remote, local := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
	if !remote.Addr().Unmap().IsLoopback() {
		return 0, errors.New("the connection is not from this machine")
	}
	table := "/proc/net/tcp"
	if !local.Addr().Unmap().Is4() {
		table = "/proc/net/tcp6"
	}
	f, err := os.Open(table)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// The other end's socket is the one whose addresses are ours the other way round.
	want := [][]byte{socketAddr(remote), socketAddr(local)}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) > 7 && bytes.Equal(fields[1], want[0]) && bytes.Equal(fields[2], want[1]) && string(fields[3]) == established {
			return strconv.Atoi(string(fields[7]))
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("the connection from %s is not in %s", remote, table)
}

// established is the state of an open connection. A socket that is closing has uid 0 in the
// table, whosever it was.
const established = "01"

// socketAddr writes an address as the kernel's table does: each 32-bit word of it in the
// machine's order.
func socketAddr(a netip.AddrPort) []byte {
	raw := a.Addr().Unmap().AsSlice()
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	text := bytes.ToUpper(hex.AppendEncode(nil, raw))
	return fmt.Appendf(append(text, ':'), "%04X", a.Port())
}
