package needs

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func objects(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, document := range strings.Split(text, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestEveryBuiltInKindIsRead(t *testing.T) {
	got := Of(objects(t, `apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  initContainers: [{name: i, image: init:1}]
  containers: [{name: c, image: "registry.example.org:5000/team/app:2@`+digest+`"}]
  ephemeralContainers: [{name: e, image: debug}]
  volumes: [{name: v, image: {reference: quay.io/data/model:7}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: s}
spec: {template: {spec: {containers: [{name: c, image: stateful:1}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: j}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: cron:1}]}}}}}
---
apiVersion: v1
kind: PodTemplate
metadata: {name: t}
template: {spec: {containers: [{name: c, image: template:1}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
data: {image: example.org/not/an-image:1}
`))
	want := []string{
		"docker.io/library/cron:1", "docker.io/library/debug:latest", "docker.io/library/init:1", "docker.io/library/stateful:1",
		"docker.io/library/template:1", "quay.io/data/model:7", "registry.example.org:5000/team/app@" + digest,
	}
	if !slices.Equal(got.References, want) || len(got.Problems) > 0 {
		t.Errorf("got %q, problems %q", got.References, got.Problems)
	}
}

func TestWhatCannotBeSeenIsSaidOrReported(t *testing.T) {
	got := Of(objects(t, `apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: silent, namespace: apps}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: told, annotations: {bothy.dev/images: "example.org/a:1, b:2"}}
---
apiVersion: monitoring.example.org/v1
kind: Prometheus
metadata: {name: x}
spec:
  image: quay.io/prometheus/prometheus:v3
  logo: {image: logo}
  sidecar: {containers: [{name: c, image: short}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: web}
spec: {template: {spec: {containers: [{name: c, image: "${registry}/app:1"}]}}}
`))
	want := []string{"docker.io/library/b:2", "docker.io/library/short:latest", "example.org/a:1", "quay.io/prometheus/prometheus:v3"}
	if !slices.Equal(got.References, want) {
		t.Errorf("got %q", got.References)
	}
	all := strings.Join(got.Problems, "\n")
	if len(got.Problems) != 2 || !strings.Contains(all, "HelmRelease apps/silent") || !strings.Contains(all, Annotation) || !strings.Contains(all, "Deployment web/d") {
		t.Errorf("problems:\n%s", all)
	}
}
