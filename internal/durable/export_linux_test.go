package durable

// RenameNew stands in for a link where the file system has none.
var RenameNew = renameNew
