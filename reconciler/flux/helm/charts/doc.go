// Package charts turns the files of a Helm chart into what Helm works with.
//
// A chart is [Files]: names and contents, taken from a directory of any fs.FS or
// from an archive, held in memory, never unpacked to disk. They can be given
// other default values, another version and missing dependencies, and be packed
// into an archive whose bytes depend on nothing but the files.
//
// It promises: names that leave the chart, files that are no regular files and
// charts larger than [MaxSize] are refused.
//
// The package must not know where charts come from.
//
// Map: files.go (reading), pack.go (writing), values.go (values files),
// dependencies.go.
package charts
