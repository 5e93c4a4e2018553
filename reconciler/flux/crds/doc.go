// Package crds holds the CustomResourceDefinitions of the Flux API and puts
// them into a cluster.
//
// The files are generated from Flux's own API modules and are what Flux itself
// ships. [Install] promises: definitions that are there already cost one list of
// their metadata and no write; it returns when the API server serves all kinds;
// it may be called at any time and by several processes.
//
// The package must not know who reconciles the kinds.
//
// Map: embed.go (the files), install.go; generate is the generator.
package crds

//go:generate go run ./generate
