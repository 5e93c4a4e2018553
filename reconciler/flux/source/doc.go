// Package source holds what the sources of the Flux API deliver. The controllers
// that fetch it are in the packages below.
//
// The [Store] hands an [Artifact], the files of one revision, from whoever
// fetched it to whoever builds from it: within the process, without archives or
// temporary files. The boot repository is in it as GitRepository
// flux-system/flux-system, put there by the hall of the reconciler; all others
// are put there by their controllers.
package source
