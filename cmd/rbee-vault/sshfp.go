package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshfp is an SSHFP record (RFC 4255, 6594, 7479) with a SHA-256 hash.
type sshfp struct {
	algorithm int
	hash      [sha256.Size]byte
}

// Numbers of the records.
const (
	sshfpRSA     = 1
	sshfpECDSA   = 3
	sshfpED25519 = 4
	sshfpSHA1    = 1
	sshfpSHA256  = 2
)

// sshfpAlgorithm returns the number of a key's type, or 0.
func sshfpAlgorithm(keyType string) int {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return sshfpRSA
	case ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return sshfpECDSA
	case ssh.KeyAlgoED25519:
		return sshfpED25519
	}
	return 0
}

// matches reports whether the record is of a key in wire format.
func (r sshfp) matches(key []byte) bool {
	hash := sha256.Sum256(key)
	return subtle.ConstantTimeCompare(hash[:], r.hash[:]) == 1
}

// errNotSSHFP: the line is not a record.
var errNotSSHFP = errors.New("not an SSHFP record")

// parseSSHFP parses a line as "ssh-keygen -r" prints it, or a zone file has it:
// NAME [TTL] [IN] SSHFP ALGORITHM 2 HEX. A record with a SHA-1 hash has no name: it proves
// nothing. So has a line with nothing but a comment of a zone file.
func parseSSHFP(line string) (name string, r sshfp, err error) {
	if strings.HasPrefix(strings.TrimSpace(line), ";") {
		return "", sshfp{}, nil
	}
	line, _, _ = strings.Cut(line, ";") // a comment
	fields := strings.Fields(line)
	at := slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(f, "SSHFP") })
	if at < 1 || slices.ContainsFunc(fields[1:at], func(f string) bool { return !strings.EqualFold(f, "IN") && !isNumber(f) }) {
		return "", sshfp{}, errNotSSHFP // such as a comment in known_hosts
	}
	values := fields[at+1:]
	if len(values) < 3 {
		return "", sshfp{}, errors.New("an SSHFP record needs an algorithm, a hash type and a hash")
	}
	algorithm, err := strconv.Atoi(values[0])
	if err != nil {
		return "", sshfp{}, errors.New("the algorithm of an SSHFP record is a number")
	}
	switch hashType, err := strconv.Atoi(values[1]); {
	case err != nil || hashType != sshfpSHA1 && hashType != sshfpSHA256:
		return "", sshfp{}, errors.New("the hash type of an SSHFP record is 1 or 2")
	case hashType == sshfpSHA1:
		return "", sshfp{}, nil
	}
	hash, err := hex.DecodeString(strings.Join(values[2:], ""))
	if err != nil || len(hash) != sha256.Size {
		return "", sshfp{}, errors.New("the hash of an SSHFP record is not a SHA-256 in hexadecimal")
	}
	r.algorithm = algorithm
	copy(r.hash[:], hash)
	return strings.TrimSuffix(fields[0], "."), r, nil
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }
