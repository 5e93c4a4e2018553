package v1alpha1

import (
	"strings"
	"testing"
)

func TestRepositorySources(t *testing.T) {
	const head = "apiVersion: bothy.dev/v1alpha1\nkind: BootConfig\ntrust: {none: true}\n"
	decode := func(repository string) (*BootConfig, error) {
		return DecodeBootConfig("boot.yaml", []byte(head+repository))
	}
	b, err := decode("repository:\n  url: https://a.example/r.git\n  credentialsFile: /etc/a\n  path: clusters/a\n  sources:\n" +
		"  - {url: \"ssh://git@b.example/r.git\", credentialsFile: /etc/b}\n  - {url: \"bundle:///run/media/*/site.bundle\"}\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range b.Repository.All() {
		got = append(got, s.URL+" "+s.CredentialsFile)
	}
	if want := "https://a.example/r.git /etc/a|ssh://git@b.example/r.git /etc/b|bundle:///run/media/*/site.bundle "; strings.Join(got, "|") != want {
		t.Errorf("sources %q", got)
	}
	if _, err := decode("repository: {path: a}\nendpoint: {tokens: [{name: ci, sha256: " + strings.Repeat("ab", 32) + "}]}\n"); err != nil {
		t.Errorf("a site that is only pushed to: %v", err)
	}
	for text, want := range map[string]string{
		"{path: a}":                                            "boot.yaml:4: repository.url: is empty",
		"{path: a, sources: [{url: \"\"}]}":                    "boot.yaml:4: repository.sources[0].url: is empty",
		"{path: a, url: /r, sources: [/x]}":                    "boot.yaml:4: repository.sources[0]",
		"{path: a, sources: [{uri: /r}]}":                      "boot.yaml:4: repository.sources[0].uri: unknown field",
		"{path: a, url: /r, sources: [{url: /r}]}":             `boot.yaml:4: repository.sources[0].url: "/r" is listed twice`,
		"{path: a, sources: [{url: \"http://h/r\"}]}":          "boot.yaml:4: repository.sources[0].url: plain http is not accepted",
		"{path: a, sources: [{url: \"bundle://r.b\"}]}":        `boot.yaml:4: repository.sources[0].url: "bundle://r.b" is not the path of a bundle`,
		"{path: a, sources: [{url: \"https://u:p@h/r\"}]}":     "boot.yaml:4: repository.sources[0].url: must not carry credentials; put credentials into repository.sources[0].credentialsFile",
		"{path: a, credentialsFile: /c, sources: [{url: /r}]}": "boot.yaml:4: repository.credentialsFile: is for repository.url, which is empty",
		"{path: a, url: /r, branch: ../x}":                     `boot.yaml:4: repository.branch: "../x" is not a branch name`,
	} {
		if _, err := decode("repository: " + text + "\n"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}
