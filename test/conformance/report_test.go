package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeReport(t *testing.T, specs string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, []byte(`[{"SuiteDescription":"e2e","SpecReports":[`+specs+`]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestReportBecomesResults(t *testing.T) {
	reports, err := readReport(writeReport(t, `
		{"LeafNodeType":"SynchronizedBeforeSuite","State":"passed"},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-x] A"],"ContainerHierarchyLabels":[["sig-x"]],"LeafNodeText":"passes","LeafNodeLabels":["Serial"],"State":"passed","RunTime":1500000000},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-x] A"],"LeafNodeText":"fails","State":"failed",
		 "Failure":{"Message":"no answer","Location":{"FileName":"/go/k8s.io/kubernetes@v1/test/e2e/network/dns.go","LineNumber":7}}},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-x] A"],"LeafNodeText":"needs two nodes","State":"skipped","Failure":{"Message":"Requires at least 2 nodes"}},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-x] A"],"LeafNodeText":"was not chosen","State":"skipped"},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-x] A"],"LeafNodeText":"was cut short","State":"interrupted","Failure":{"Message":"Interrupted by User"}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]result{}
	for _, r := range reports {
		if res, ok := r.result(); ok {
			got[r.text()] = res
		}
	}
	if len(got) != 3 {
		t.Fatalf("%d results, want 3: %v", len(got), got)
	}
	if r := got["[sig-x] A passes"]; r.State != passed || r.Seconds != 1.5 {
		t.Errorf("passes: %+v", r)
	}
	if r := got["[sig-x] A fails"]; r.State != failed || r.Message != "no answer" || r.Where != "test/e2e/network/dns.go:7" {
		t.Errorf("fails: %+v", r)
	}
	if r := got["[sig-x] A needs two nodes"]; r.State != skipped || r.Message != "Requires at least 2 nodes" {
		t.Errorf("needs two nodes: %+v", r)
	}
	if labels := strings.Join(reports[0].labels(), " "); labels != "Serial sig-x" {
		t.Errorf("labels %q", labels)
	}
}

func TestSuiteThatDoesNotStartIsAnError(t *testing.T) {
	_, err := readReport(writeReport(t, `
		{"LeafNodeType":"SynchronizedBeforeSuite","State":"failed","Failure":{"Message":"no nodes"}},
		{"LeafNodeType":"It","LeafNodeText":"x","State":"skipped"}`))
	if err == nil || !strings.Contains(err.Error(), "no nodes") {
		t.Fatalf("got %v", err)
	}
}
