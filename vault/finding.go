package vault

import "fmt"

// FindingStatus is the result of a check.
type FindingStatus string

// The statuses of a finding.
const (
	FindingOK   FindingStatus = "ok"
	FindingWarn FindingStatus = "warn"
	FindingFail FindingStatus = "fail"
)

// Check names what a finding is about.
type Check string

// The checks of [Examine]. A program may add its own.
const (
	CheckAnchor           Check = "anchor"
	CheckAuditLog         Check = "audit log"
	CheckCredential       Check = "credential"
	CheckKeyAge           Check = "key age"
	CheckKeyringItem      Check = "keyring item"
	CheckKeyringLeftovers Check = "keyring leftovers"
	CheckLeftovers        Check = "leftovers"
	CheckModes            Check = "modes"
	CheckOffered          Check = "offered"
	CheckOpen             Check = "open"
	CheckPages            Check = "pages"
	CheckRows             Check = "rows"
	CheckSigner           Check = "signer"
	CheckSlots            Check = "slots"
	CheckSlotsFile        Check = "slots file"
)

// Finding is the outcome of one check.
type Finding struct {
	Check   Check
	Status  FindingStatus
	Message string
	Fix     string // a command, or ""
	Err     error  // set for a failure
	Unused  bool   // the vault does not use what is checked
}

func okay(check Check, format string, args ...any) Finding {
	return Finding{Check: check, Status: FindingOK, Message: fmt.Sprintf(format, args...)}
}

func warning(check Check, fix, format string, args ...any) Finding {
	return Finding{Check: check, Status: FindingWarn, Fix: fix, Message: fmt.Sprintf(format, args...)}
}

func failed(check Check, fix string, err error) Finding {
	return Finding{Check: check, Status: FindingFail, Fix: fix, Message: err.Error(), Err: err}
}
