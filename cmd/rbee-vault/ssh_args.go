package main

import (
	"strings"
)

// ssh's options, as ssh(1) has them.
const (
	sshFlags   = "1246afgknqstvxACGKNTVXYyM"
	sshValued  = "BbcDEeFIiJLlmOopQRSWw"
	sshRefused = "FMOSP"
)

// sshArgs is a command line of ssh.
type sshArgs struct {
	node  string // the host, without user and port; "" if there is none
	about bool   // -V or -Q: ssh says something of itself, and needs no host
}

// parseSSHArgs finds the host in a command line of ssh. It refuses what leads around the
// vault: another configuration, and connections that are shared with other processes.
func parseSSHArgs(args []string) (sshArgs, error) {
	var p sshArgs
	n, ended, err := p.options(args)
	if err != nil || n == len(args) {
		return p, err
	}
	p.node = hostOf(args[n])
	if !ended {
		_, _, err = p.options(args[n+1:]) // ssh takes options behind the host too
	}
	return p, err
}

// options reads the options that args begins with, as ssh's own getopt does, and returns
// how many arguments they are. ended reports that "--" ends them.
func (p *sshArgs) options(args []string) (n int, ended bool, err error) {
	for n < len(args) {
		arg := args[n]
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		n++
		if arg == "--" {
			break
		}
		for i := 1; i < len(arg); i++ {
			option := arg[i]
			value := ""
			if strings.IndexByte(sshValued, option) >= 0 {
				if value = arg[i+1:]; value == "" {
					if n == len(args) {
						return n, false, usagef("ssh's option -%c needs an argument", option)
					}
					value = args[n]
					n++
				}
				i = len(arg)
			} else if strings.IndexByte(sshFlags+sshRefused, option) < 0 {
				return n, false, usagef("ssh has no option -%s", arg[i:])
			}
			if err := p.option(option, value); err != nil {
				return n, false, err
			}
		}
	}
	return n, n > 0 && args[n-1] == "--", nil // ssh compares so
}

// option looks at one option.
func (p *sshArgs) option(option byte, value string) error {
	switch {
	case strings.IndexByte(sshRefused, option) >= 0:
		return usagef("-%c is not possible here: ssh gets a configuration from the vault, and a connection of its own", option)
	case option == 'o':
		return checkSSHSetting(value)
	case option == 'V' || option == 'Q':
		p.about = true
	}
	return nil
}

// checkSSHSetting refuses a line of -o that shares the connection.
func checkSSHSetting(line string) error {
	line = strings.TrimLeft(line, " \t\r\f\"")
	end := strings.IndexAny(line, " \t\r\f\"=")
	if end < 0 {
		return nil // ssh refuses it
	}
	value := strings.ToLower(strings.Trim(line[end:], " \t\r\f\"="))
	switch strings.ToLower(line[:end]) {
	case "controlmaster":
		if value != "no" && value != "false" {
			return usagef("ControlMaster is not possible here: whoever reaches its socket logs in without a key")
		}
	case "controlpath":
		if value != "none" {
			return usagef("ControlPath is not possible here: whoever reaches its socket logs in without a key")
		}
	}
	return nil
}

// hostOf returns the host of a destination: HOST, USER@HOST or ssh://USER@HOST:PORT.
func hostOf(destination string) string {
	uri, isURI := strings.CutPrefix(destination, "ssh://")
	host := destination
	if isURI {
		host, _, _ = strings.Cut(uri, "/")
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if isURI { // no name of a node has a colon
		host, _, _ = strings.Cut(host, ":")
	}
	return host
}
