package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is a command line that the command cannot take: exit 64.
type usageError string

func (e usageError) Error() string { return string(e) }

// usagef reports wrong flags and arguments.
func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// wrapArgs turns wrong numbers of arguments and unknown commands into usage errors.
func wrapArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && cmd.HasSubCommands() && check(cmd, args) != nil {
			return unknownCommand(cmd, args[0])
		}
		if check(cmd, args) != nil {
			return wrongArgs(cmd, len(args))
		}
		return nil
	}
	if cmd.RunE == nil && cmd.Run == nil && cmd.HasSubCommands() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			return usagef("which %s command?", cmd.Name())
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// wrongArgs says what arguments a command takes.
func wrongArgs(cmd *cobra.Command, given int) error {
	_, takes, _ := strings.Cut(cmd.Use, " ")
	if takes == "" {
		return usagef("%s takes no argument", cmd.CommandPath())
	}
	if given == 0 {
		return usagef("%s needs %s", cmd.CommandPath(), takes)
	}
	if given == 1 {
		return usagef("%s takes %s, and got 1 argument", cmd.CommandPath(), takes)
	}
	return usagef("%s takes %s, and got %d arguments", cmd.CommandPath(), takes, given)
}

func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	err := usagef("there is no command %q in %s", name, cmd.CommandPath())
	if meant := didYouMean(name, names); meant != "" {
		return withHint(err, "%s All of them: %s --help", meant, cmd.CommandPath())
	}
	return err
}

// flagError explains a flag that does not parse.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		failed := usagef("there is no flag %s", dashed(unknown.GetSpecifiedName(), unknown.GetSpecifiedShortnames() != ""))
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		})
		if meant := didYouMean("--"+unknown.GetSpecifiedName(), names); meant != "" {
			return withHint(failed, "%s All of them: %s --help", meant, cmd.CommandPath())
		}
		return failed
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usagef("--%s needs a value", missing.GetFlag().Name)
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		return usagef("--%s takes %s, and got %q", f.Name, valueName(f), invalid.GetValue())
	}
	return usageError(err.Error())
}

func dashed(name string, short bool) string {
	if short {
		return "-" + name
	}
	return "--" + name
}

// valueName says what a flag takes.
func valueName(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "template":
		return "a template such as '{{.node_name}}'"
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 30s, 10m or 2h"
	case "uint16":
		return "a number from 1 to 65535"
	case "int", "int64", "uint", "uint32", "uint64", "intSlice":
		return "a number"
	}
	return "another value"
}
