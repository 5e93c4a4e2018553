package image

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bothy-os/bothy/internal/debian"
)

// The types below are as much of SPDX 2.3 as is used.
type spdxDocument struct {
	SPDXVersion       string             `json:"spdxVersion"`
	DataLicense       string             `json:"dataLicense"`
	SPDXID            string             `json:"SPDXID"`
	Name              string             `json:"name"`
	DocumentNamespace string             `json:"documentNamespace"`
	CreationInfo      spdxCreation       `json:"creationInfo"`
	Packages          []spdxPackage      `json:"packages"`
	Relationships     []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name             string         `json:"name"`
	SPDXID           string         `json:"SPDXID"`
	VersionInfo      string         `json:"versionInfo,omitempty"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	Supplier         string         `json:"supplier,omitempty"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	ExternalRefs     []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm     string `json:"algorithm"`
	ChecksumValue string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	spdxRoot     = "SPDXRef-image"
	spdxDocID    = "SPDXRef-DOCUMENT"
	noAssertion  = "NOASSERTION"
	contains     = "CONTAINS"
	dependsOn    = "DEPENDS_ON"
	unknownBuild = "(devel)"
)

// sbom collects what is in an image.
type sbom struct {
	packages  map[string]spdxPackage
	relations map[spdxRelationship]bool
}

// writeSBOM lists the Debian packages, the binaries, and the Go modules that the binaries
// say they were built from.
func (b *builder) writeSBOM(file string) error {
	s := &sbom{packages: map[string]spdxPackage{}, relations: map[spdxRelationship]bool{}}
	s.add(spdxPackage{Name: "bothy-" + b.opts.Flavour, SPDXID: spdxRoot, VersionInfo: b.opts.Version})
	s.relate(spdxDocID, "DESCRIBES", spdxRoot)
	for _, name := range append(slices.Clone(b.in.lock.Kernels[b.opts.Flavour].Packages), stubPackage, certificatesPackage) {
		p, err := b.in.lock.Find(name)
		if err != nil {
			return err
		}
		s.relate(spdxRoot, contains, s.add(debianPackage(p)))
	}
	for _, name := range binaries() {
		if err := s.binary(filepath.Join(b.opts.BinDir, name)); err != nil {
			return fmt.Errorf("read what %s was built from: %w", name, err)
		}
	}
	data, err := json.MarshalIndent(s.document(b.opts), "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

func (s *sbom) add(p spdxPackage) string {
	if p.DownloadLocation == "" {
		p.DownloadLocation = noAssertion
	}
	s.packages[p.SPDXID] = p
	return p.SPDXID
}

func (s *sbom) relate(from, kind, to string) { s.relations[spdxRelationship{from, kind, to}] = true }

func debianPackage(p debian.Package) spdxPackage {
	return spdxPackage{
		Name: p.Name, SPDXID: spdxID("deb", p.Name, p.Version), VersionInfo: p.Version, Supplier: "Organization: Debian",
		Checksums:    []spdxChecksum{{"SHA256", p.SHA256}},
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:deb/debian/" + p.Name + "@" + strings.ReplaceAll(p.Version, "+", "%2B") + "?arch=amd64"}},
	}
}

// binary adds a program and the modules in it.
func (s *sbom) binary(file string) error {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	name := filepath.Base(file)
	id := s.add(spdxPackage{Name: name, SPDXID: spdxID("bin", name, ""), Checksums: []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}}})
	s.relate(spdxRoot, contains, id)
	modules := append([]*debug.Module{&info.Main, {Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}, info.Deps...)
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Path == "" {
			continue
		}
		version := m.Version
		if version == unknownBuild {
			version = ""
		}
		s.relate(id, dependsOn, s.add(goModule(m.Path, version)))
	}
	return nil
}

func goModule(path, version string) spdxPackage {
	purl := "pkg:golang/" + path
	if version != "" {
		purl += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return spdxPackage{
		Name: path, SPDXID: spdxID("go", path, version), VersionInfo: version,
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", purl}},
	}
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func spdxID(kind, name, version string) string {
	return "SPDXRef-" + kind + "-" + strings.Trim(notInID.ReplaceAllString(name+"-"+version, "-"), "-")
}

// document puts everything in an order that is always the same.
func (s *sbom) document(o Options) *spdxDocument {
	d := &spdxDocument{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: spdxDocID, Name: o.Name,
		CreationInfo: spdxCreation{Created: o.Time.Format(time.RFC3339), Creators: []string{"Tool: bothy-" + o.Version}},
	}
	h := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(s.packages)) {
		p := s.packages[id]
		d.Packages = append(d.Packages, p)
		fmt.Fprintln(h, p)
	}
	d.DocumentNamespace = "https://bothy.dev/spdx/" + o.Name + "-" + hex.EncodeToString(h.Sum(nil))[:32]
	d.Relationships = slices.SortedFunc(maps.Keys(s.relations), func(a, b spdxRelationship) int {
		return slices.Compare([]string{a.Element, a.Type, a.Related}, []string{b.Element, b.Type, b.Related})
	})
	return d
}
