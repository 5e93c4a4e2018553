// Package ignore hides files as Flux does when it makes an artifact: by its
// default patterns, by the .sourceignore files of a repository and by the ignore
// rules of the source object.
//
// The rules are found on the way to a path and never by walking the
// repository, so that the cost of looking at a file does not grow with the
// number of the others. Directories are never hidden, only the files in them.
//
// The package must not know where the files come from.
package ignore
