// Package version says which build this is. The values are set by the linker;
// see the Makefile.
package version

import (
	"runtime"
	"time"
)

var (
	// Version is the release or `git describe` of the build.
	Version = "devel"
	// Commit is the full Git commit of the build.
	Commit = "unknown"
	// built is the time of the commit, RFC 3339.
	built = ""
	// Kubernetes is the upstream version inside.
	Kubernetes = "v1.37.1"
)

// Info is what `bothy version -o json` prints.
type Info struct {
	Version    string `json:"version"`
	Commit     string `json:"commit"`
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Get returns the build's identity.
func Get() Info {
	return Info{
		Version: Version, Commit: Commit, Kubernetes: Kubernetes,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

// Built returns the time of the commit that the build was made from; zero if
// that is not known.
func Built() time.Time {
	t, err := time.Parse(time.RFC3339, built)
	if err != nil {
		return time.Time{}
	}
	return t
}
