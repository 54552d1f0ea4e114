package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// The message numbers of the agent protocol (draft-ietf-sshm-ssh-agent) that this agent
// knows. It answers failure to all others.
const (
	msgFailure           = 5
	msgSuccess           = 6
	msgRequestIdentities = 11
	msgIdentitiesAnswer  = 12
	msgSignRequest       = 13
	msgSignResponse      = 14
	msgLock              = 22
	msgUnlock            = 23
	msgExtension         = 27
)

// The flags of a signature request.
const (
	flagRSASHA256 = 2
	flagRSASHA512 = 4
)

const (
	// maxMessage is OpenSSH's own limit. A request to add a key of any size fits, so that
	// it is answered.
	maxMessage = 256 << 10
	// messageTime is how long the rest of a message may take when it has begun, and an
	// answer until it is taken.
	messageTime = 30 * time.Second
)

type signRequest struct {
	Key   []byte `sshtype:"13"`
	Data  []byte
	Flags uint32
}

type lockRequest struct {
	Passphrase []byte `sshtype:"22|23"`
}

type extensionRequest struct {
	Name     string `sshtype:"27"`
	Contents []byte `ssh:"rest"`
}

type identity struct {
	Key     []byte
	Comment string
}

type signResponse struct {
	Signature []byte `sshtype:"14"`
}

var (
	failure = []byte{msgFailure}
	success = []byte{msgSuccess}
)

// identitiesAnswer is the answer to a request for the list of keys.
func identitiesAnswer(list []identity) []byte {
	answer := binary.BigEndian.AppendUint32([]byte{msgIdentitiesAnswer}, uint32(len(list)))
	for _, i := range list {
		answer = append(answer, ssh.Marshal(i)...)
	}
	return answer
}

// readMessage reads one request. It waits for its beginning as long as the connection
// lives. It returns [io.EOF] where the connection ended between two requests. The caller
// wipes the request, which may hold a private key or a passphrase.
func readMessage(conn net.Conn) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxMessage {
		return nil, fmt.Errorf("a request of %d bytes", n)
	}
	if err := conn.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return nil, err
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(conn, message); err != nil {
		clear(message)
		return nil, fmt.Errorf("read a request: %w", err)
	}
	return message, conn.SetReadDeadline(time.Time{})
}

func writeMessage(conn net.Conn, message []byte) error {
	if len(message) > maxMessage {
		message = failure
	}
	if err := conn.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	framed := slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message)
	_, err := conn.Write(framed)
	return err
}
