package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strings"
)

// page shows a table that is longer than the terminal in $PAGER, else in less. Where no pager
// runs, the table is printed. It is called at the end of the command, which holds the vault no
// longer.
func (u *ui) page() error {
	text := u.paged
	u.paged = ""
	if text == "" {
		return nil
	}
	if err := u.flush(); err != nil {
		return err
	}
	if command := u.pager(); command != "" && u.runPager(command, text) == nil {
		return nil
	}
	_, err := u.out.WriteString(text)
	return err
}

// pager returns the command line of the pager, "" for none.
func (u *ui) pager() string {
	if command, set := os.LookupEnv("PAGER"); set {
		return command
	}
	if path, err := exec.LookPath("less"); err == nil {
		return path
	}
	return ""
}

// runPager runs the pager. From less no program can be started, and it keeps no history on the
// disk; another pager is the operator's own choice.
func (u *ui) runPager(command, text string) error {
	interrupts := make(chan os.Signal, 1) // they are the pager's
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), "LESSSECURE=1", "LESSHISTFILE=-")
	// Colours; no pager for one screen; the text stays. Whoever has options of their own needs the
	// colours too: without R less prints them as text.
	options := "LESS=FRX"
	if own, set := os.LookupEnv("LESS"); set {
		options = "LESS=-R " + own
	}
	cmd.Env = append(cmd.Env, options)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), u.screen, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() < 126 { // it ran: 126 and 127 are the shell's
		return nil
	}
	return err
}
