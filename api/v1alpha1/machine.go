package v1alpha1

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bothy-os/bothy/internal/strictyaml"
)

// The roles of a machine.
const (
	RoleControlPlane = "control-plane"
	RoleWorker       = "worker"
)

// IsWorker reports whether the machine is a node without a control plane.
func (m *Machine) IsWorker() bool { return m.Spec.Role == RoleWorker }

// identityPrefix begins the fingerprint of a machine's identity key.
const identityPrefix = "SHA256:"

// validIdentity says what is wrong with a fingerprint, "" if nothing.
func validIdentity(text string) string {
	encoded, found := strings.CutPrefix(text, identityPrefix)
	sum, err := base64.RawStdEncoding.Strict().DecodeString(encoded)
	if !found || err != nil || len(sum) != 32 {
		return fmt.Sprintf("%q is not the fingerprint of a machine", text)
	}
	return ""
}

const identityRemedy = "copy what `bothy machine identity` prints on that machine: SHA256: and 43 characters"

// Validate returns what is wrong with a defaulted Machine.
func (m *Machine) Validate() []*FieldError {
	var p problems
	if !dnsSubdomain.MatchString(m.Metadata.Name) {
		p.add("metadata.name", "use lower-case letters, digits and dashes", "%q is not a valid node name", m.Metadata.Name)
	}
	oneOf(&p, "spec.role", m.Spec.Role, RoleControlPlane, RoleWorker)
	m.validateIdentity(&p)
	for i, a := range m.Spec.Addresses {
		addr, err := netip.ParseAddr(a)
		if err != nil || addr.Zone() != "" || addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() {
			p.add(fmt.Sprintf("spec.addresses[%d]", i), "write an IP address by which other nodes reach the machine", "%q cannot be the address of a node", a)
		}
	}
	for i, t := range m.Spec.Taints {
		if t.Key == "" {
			p.add(fmt.Sprintf("spec.taints[%d].key", i), "", "is empty")
		}
		oneOf(&p, fmt.Sprintf("spec.taints[%d].effect", i), t.Effect, "NoSchedule", "PreferNoSchedule", "NoExecute")
	}
	m.Spec.System.validate(&p, "spec.system")
	return p
}

func (m *Machine) validateIdentity(p *problems) {
	switch {
	case m.Spec.Identity != "":
		if problem := validIdentity(m.Spec.Identity); problem != "" {
			p.add("spec.identity", identityRemedy, "%s", problem)
		}
	case m.IsWorker():
		p.add("spec.identity", identityRemedy, "is missing: a worker joins by it")
	}
}

// MachineFile is a file of a site's machines directory.
type MachineFile struct {
	// Path is what errors call the file.
	Path string
	Data []byte
}

// DecodeMachines reads all Machines of a site. Beside what [DecodeMachine] finds, no two may share a
// name, an identity or an address, and workers need a control plane that they can find and recognise.
func DecodeMachines(files []MachineFile) ([]*Machine, error) {
	var (
		all  []*Machine
		docs []*strictyaml.Document
		errs []error
	)
	for _, f := range files {
		m := &Machine{}
		doc, err := decode(f.Path, f.Data, "Machine", &m.TypeMeta, m)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.Default()
		errs = append(errs, report(doc, m.Validate()))
		all, docs = append(all, m), append(docs, doc)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	errs = append(errs, unique(all, docs)...)
	errs = append(errs, reachableControlPlane(all, docs))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return all, nil
}

// unique finds what two machines have in common and must not.
func unique(all []*Machine, docs []*strictyaml.Document) []error {
	var errs []error
	taken := map[string]string{}
	claim := func(doc *strictyaml.Document, field, value string) {
		if other, found := taken[value]; found {
			errs = append(errs, doc.Errorf(field, "keep it in one of the two files", "%s is that of the Machine in %s", value, other))
			return
		}
		taken[value] = doc.File
	}
	for i, m := range all {
		claim(docs[i], "metadata.name", m.Metadata.Name)
		if m.Spec.Identity != "" {
			claim(docs[i], "spec.identity", m.Spec.Identity)
		}
		for n, a := range m.Spec.Addresses {
			addr, err := netip.ParseAddr(a)
			if err == nil {
				claim(docs[i], fmt.Sprintf("spec.addresses[%d]", n), addr.Unmap().String())
			}
		}
	}
	return errs
}

// reachableControlPlane refuses workers that could not join.
func reachableControlPlane(all []*Machine, docs []*strictyaml.Document) error {
	worker := -1
	for i, m := range all {
		switch {
		case m.IsWorker():
			worker = i
		case m.Spec.Identity != "" && len(m.Spec.Addresses) > 0:
			return nil
		}
	}
	if worker < 0 {
		return nil
	}
	return docs[worker].Errorf("spec.role", "add the Machine of the control plane with spec.identity and spec.addresses",
		"a worker needs a control plane, but no Machine of role %s has an identity to recognise it by and an address to find it at", RoleControlPlane)
}
