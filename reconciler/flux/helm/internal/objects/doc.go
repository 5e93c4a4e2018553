// Package objects has what the controllers of the Helm API share about their own
// objects.
//
// The package must not know what the objects are for.
//
// Map: conditions.go (what sources say that failed and succeeded), requested.go.
package objects
