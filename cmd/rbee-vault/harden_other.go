//go:build !linux

package main

func notDumpable() {}

func dumpable() bool { return true }
