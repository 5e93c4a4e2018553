package v1alpha1

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// RepositorySpec says where the cluster is described. At least one of URL and
// Sources is needed, unless the node's endpoint can be pushed to.
type RepositorySpec struct {
	// URL is https://, ssh://, file:// or an absolute path; or bundle:///path of a
	// git bundle, of a directory of bundles, or with * and ? for several. It is
	// asked before Sources.
	URL string `json:"url,omitempty"`
	// Sources are further places with the same repository, in order of
	// preference: one is asked when those before it cannot be read, or have no
	// acceptable commit that is new.
	Sources []RepositorySource `json:"sources,omitempty"`
	// Branch to follow. Default main.
	Branch string `json:"branch,omitempty"`
	// Path of the site in the repository, e.g. clusters/default.
	Path string `json:"path"`
	// Interval between polls. Default 30s.
	Interval Duration `json:"interval,omitempty"`
	// CredentialsFile holds the credentials for URL, never the boot
	// configuration itself.
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

// RepositorySource is one place with the repository.
type RepositorySource struct {
	// URL is as in RepositorySpec.
	URL string `json:"url"`
	// CredentialsFile holds the credentials for URL.
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

// All lists the places with the repository in order of preference.
func (r *RepositorySpec) All() []RepositorySource {
	var out []RepositorySource
	if r.URL != "" {
		out = append(out, RepositorySource{URL: r.URL, CredentialsFile: r.CredentialsFile})
	}
	return append(out, r.Sources...)
}

func (r *RepositorySpec) validate(p *problems, pushable bool) {
	switch {
	case r.URL != "":
		validateURL(p, "repository.url", "repository.credentialsFile", r.URL)
	case len(r.Sources) == 0 && !pushable:
		p.add("repository.url", "say where the Git repository is, or who may push to endpoint", "is empty")
	case r.CredentialsFile != "":
		p.add("repository.credentialsFile", "move it to the source that needs it", "is for repository.url, which is empty")
	}
	seen := map[string]bool{r.URL: true}
	for i, s := range r.Sources {
		at := fmt.Sprintf("repository.sources[%d]", i)
		switch {
		case s.URL == "":
			p.add(at+".url", "say where the Git repository is", "is empty")
			continue
		case seen[s.URL]:
			p.add(at+".url", "remove it", "%q is listed twice", s.URL)
		}
		seen[s.URL] = true
		validateURL(p, at+".url", at+".credentialsFile", s.URL)
	}
	if r.Path == "" || strings.HasPrefix(r.Path, "/") || path.Clean(r.Path) != r.Path || strings.HasPrefix(r.Path, "..") {
		p.add("repository.path", `write the site's directory, such as "clusters/default"`, "%q is not a clean relative path", r.Path)
	}
	if !validBranch(r.Branch) {
		p.add("repository.branch", `write the name of a branch, such as "main"`, "%q is not a branch name", r.Branch)
	}
	atLeast(p, "repository.interval", r.Interval.Duration, time.Second)
}

func validateURL(p *problems, field, credentials, address string) {
	u, err := url.Parse(address)
	switch {
	case strings.HasPrefix(address, "/"):
	case err != nil:
		p.add(field, "", "%q is not a URL", address)
	case u.Scheme == "http":
		p.add(field, "use https://, ssh:// or file://", "plain http is not accepted")
	case !slices.Contains([]string{"https", "ssh", "file", "bundle"}, u.Scheme):
		p.add(field, "use https://, ssh://, file://, bundle:// or an absolute path", "scheme %q is not supported", u.Scheme)
	case u.Scheme == "bundle":
		if _, err := filepath.Match(u.Path, ""); err != nil || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			p.add(field, "write bundle:///path, such as bundle:///run/media/*/site.bundle", "%q is not the path of a bundle", address)
		}
	case u.User != nil && u.Scheme == "https":
		p.add(field, "put credentials into "+credentials, "must not carry credentials")
	}
}

// validBranch follows the rules of git check-ref-format that matter for a file
// name and for git's protocol.
func validBranch(name string) bool {
	if name == "" || strings.ContainsAny(name, " ~^:?*[\\") || strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}
