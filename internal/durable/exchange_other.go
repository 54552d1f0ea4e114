//go:build !linux

package durable

import "errors"

// PutAside is only there on Linux: elsewhere no call exchanges two names at one moment.
func PutAside(string, string, string) error { return errors.ErrUnsupported }

// PutBack undoes [PutAside].
func PutBack(string, string) error { return errors.ErrUnsupported }
