package policy

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// TestScripts runs testdata/*.txtar. A script is a sequence of files: apply*.yaml and delete*.yaml
// change the API; restart has a new agent take over; want* is the tables' content, followed by the
// problems; ask* holds packets and what becomes of them. Pods of node "here" have their network.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { runScript(t, path) })
	}
}

type script struct {
	t      *testing.T
	world  *World
	table  *fakeTable
	writer *Writer
}

func runScript(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, table: newFakeTable(), world: &World{
		Node: "here", Pods: map[string]*Pod{}, Namespaces: map[string]labels.Set{}, Policies: map[string]*Policy{},
	}}
	s.restart()
	for _, file := range archive.Files {
		switch {
		case strings.HasPrefix(file.Name, "apply"):
			s.apply(string(file.Data), false)
		case strings.HasPrefix(file.Name, "delete"):
			s.apply(string(file.Data), true)
		case file.Name == "restart":
			s.restart()
			continue
		case strings.HasPrefix(file.Name, "want"):
			if diff := cmp.Diff(string(file.Data), s.table.dump()+s.problems()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file.Name, diff)
			}
			continue
		case strings.HasPrefix(file.Name, "ask"):
			s.ask(file.Name, string(file.Data))
			continue
		default:
			t.Fatalf("unknown file %q", file.Name)
		}
		s.sync()
	}
}

func (s *script) restart() {
	s.t.Helper()
	var err error
	if s.writer, err = NewWriter(s.table); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) apply(text string, remove bool) {
	s.t.Helper()
	for _, doc := range strings.Split(text, "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			s.t.Fatal(err)
		}
		switch kind.Kind {
		case "Namespace":
			o := strict[corev1.Namespace](s.t, doc)
			s.world.Namespaces[o.Name] = o.Labels
			if remove {
				delete(s.world.Namespaces, o.Name)
			}
		case "Pod":
			o := strict[corev1.Pod](s.t, doc)
			key, p := o.Namespace+"/"+o.Name, NewPod(o)
			s.world.Pods[key] = p
			if remove || p == nil {
				delete(s.world.Pods, key)
			}
		case "NetworkPolicy":
			o := strict[networkingv1.NetworkPolicy](s.t, doc)
			key := o.Namespace + "/" + o.Name
			s.world.Policies[key] = NewPolicy(o)
			if remove {
				delete(s.world.Policies, key)
			}
		default:
			s.t.Fatalf("unknown kind %q in %q", kind.Kind, doc)
		}
	}
}

func strict[T any](t *testing.T, doc string) *T {
	t.Helper()
	var o T
	if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	return &o
}

// sync does what the controller does: the pods that are new get their identity last.
func (s *script) sync() {
	s.t.Helper()
	s.world.Local = map[netip.Addr]*Pod{}
	for _, p := range s.world.Pods {
		if p.Node == s.world.Node {
			for _, a := range p.Addrs {
				s.world.Local[a] = p
			}
		}
	}
	plan, err := Compile(s.world, s.writer.Numbers)
	if err != nil {
		s.t.Fatal(err)
	}
	for a := range s.table.identities {
		if _, stays := plan.Identities[a]; !stays {
			delete(s.table.identities, a)
			s.writer.Disconnected(a)
		}
	}
	if _, err := s.writer.Apply(plan); err != nil {
		s.t.Fatal(err)
	}
	if err := s.writer.Reap(); err != nil {
		s.t.Fatal(err)
	}
	for a, identity := range plan.Identities {
		s.table.identities[a] = identity
		s.writer.Connected(a, identity)
	}
}

func (s *script) problems() string {
	var lines []string
	for key, p := range s.world.Policies {
		for _, err := range p.Problems {
			lines = append(lines, fmt.Sprintf("problem %s: %v\n", key, err))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// ask reads lines of "from to protocol/port verdict"; ends are pods' names or addresses.
func (s *script) ask(name, text string) {
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) != 4 {
			s.t.Fatalf("%s: %q is not: from to protocol/port verdict", name, line)
		}
		p := packet{from: s.addr(f[0]), to: s.addr(f[1])}
		var proto string
		if _, err := fmt.Sscanf(strings.Replace(f[2], "/", " ", 1), "%s %d", &proto, &p.port); err != nil {
			s.t.Fatalf("%s: %q: %v", name, line, err)
		}
		p.proto = map[string]tables.Protocol{"TCP": tables.TCP, "UDP": tables.UDP, "SCTP": tables.SCTP, "ICMP": 1}[proto]
		got := map[bool]string{true: "allowed", false: "denied"}[s.table.allowed(p)]
		if got != f[3] {
			s.t.Errorf("%s: %s: got %s", name, line, got)
		}
	}
}

func (s *script) addr(name string) netip.Addr {
	if p := s.world.Pods[name]; p != nil {
		return p.Addrs[0]
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		s.t.Fatalf("%q is neither a pod nor an address", name)
	}
	return a
}
