// Command age-plugin-rbeetest is a real age plugin for tests. Its recipients and identities
// contain those of age itself, so it has no state. Some identities ask for the PIN 1234 before
// they decrypt.
package main

import (
	"bytes"
	"errors"
	"log"
	"os"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
)

// The prefixes of an identity that asks for a PIN, and of one that hangs.
var (
	pin  = []byte("pin:")
	hang = []byte("hang:")
)

func main() {
	p, err := plugin.New("rbeetest")
	if err != nil {
		log.Fatal(err)
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) {
		if bytes.HasPrefix(data, hang) {
			return hanging{}, nil
		}
		recipients, err := age.ParseRecipients(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return recipients[0], nil
	})
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		native, hangs := bytes.CutPrefix(data, hang)
		native, asks := bytes.CutPrefix(native, pin)
		identities, err := age.ParseIdentities(bytes.NewReader(native))
		if err != nil {
			return nil, err
		}
		if hangs {
			return hanging{}, nil
		}
		if asks {
			return asking{identities[0], p}, nil
		}
		return identities[0], nil
	})
	os.Exit(p.Main())
}

// hanging is an identity or a recipient that never answers. It does not notice that its input
// ends.
type hanging struct{}

// Unwrap implements [age.Identity].
func (hanging) Unwrap([]*age.Stanza) ([]byte, error) {
	for {
		time.Sleep(time.Hour)
	}
}

// Wrap implements [age.Recipient].
func (h hanging) Wrap([]byte) ([]*age.Stanza, error) {
	_, err := h.Unwrap(nil)
	return nil, err
}

// asking is an identity behind a PIN.
type asking struct {
	age.Identity
	plugin *plugin.Plugin
}

// Unwrap implements [age.Identity].
func (a asking) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	fileKey, err := a.Identity.Unwrap(stanzas)
	if err != nil {
		return nil, err
	}
	answer, err := a.plugin.RequestValue("enter the PIN of the test key", true)
	if err != nil {
		return nil, err
	}
	if answer != "1234" {
		return nil, errors.New("wrong PIN")
	}
	return fileKey, nil
}
