package durable

// RenameNew replaces a link if the file system has none.
var RenameNew = renameNew
