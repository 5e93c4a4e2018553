package policy

import (
	"encoding/json"
	"slices"
	"testing"

	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	podsecurity "k8s.io/pod-security-admission/admission/api/load"
	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

func TestAnonymousOnlyForHealth(t *testing.T) {
	data, err := Authentication()
	if err != nil {
		t.Fatal(err)
	}
	var config apiserverv1.AuthenticationConfiguration
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range config.Anonymous.Conditions {
		got = append(got, c.Path)
	}
	if !config.Anonymous.Enabled || !slices.Equal(got, []string{"/livez", "/readyz", "/healthz"}) {
		t.Errorf("anonymous access to %v", got)
	}
	if config.APIVersion != "apiserver.config.k8s.io/v1" {
		t.Errorf("apiVersion %s", config.APIVersion)
	}
}

func TestPodSecurityDefaults(t *testing.T) {
	spec := v1alpha1.NewCluster("site").Spec.Security.PodSecurity
	spec.ExemptNamespaces = []string{"legacy", "kube-system"}
	data, err := Admission(spec)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		APIVersion, Kind string
		Plugins          []struct {
			Name          string
			Configuration json.RawMessage
		}
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Plugins) != 1 || config.Plugins[0].Name != "PodSecurity" {
		t.Fatalf("plugins: %v", config.Plugins)
	}
	ps, err := podsecurity.LoadFromData(config.Plugins[0].Configuration)
	if err != nil {
		t.Fatalf("the API server would refuse it: %v", err)
	}
	if ps.Defaults.Enforce != "baseline" || ps.Defaults.Warn != "restricted" || ps.Defaults.Audit != "restricted" {
		t.Errorf("defaults: %+v", ps.Defaults)
	}
	if want := []string{"kube-system", "bothy-system", "legacy"}; !slices.Equal(ps.Exemptions.Namespaces, want) {
		t.Errorf("exempt: %v, want %v", ps.Exemptions.Namespaces, want)
	}
}

func TestAuditPolicy(t *testing.T) {
	var versioned auditv1.Policy
	if err := yaml.UnmarshalStrict(Audit(), &versioned); err != nil {
		t.Fatal(err)
	}
	var policy audit.Policy
	if err := auditv1.Convert_v1_Policy_To_audit_Policy(&versioned, &policy, nil); err != nil {
		t.Fatal(err)
	}
	evaluator := auditpolicy.NewPolicyRuleEvaluator(&policy)

	human := &user.DefaultInfo{Name: "jane", Groups: []string{"bothy:admins"}}
	master := &user.DefaultInfo{Name: "root", Groups: []string{"system:masters"}}
	kubelet := &user.DefaultInfo{Name: "system:node:node1", Groups: []string{"system:nodes"}}
	manager := &user.DefaultInfo{Name: "system:kube-controller-manager"}
	resource := func(u user.Info, verb, group, resource, sub string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{User: u, Verb: verb, APIGroup: group, APIVersion: "v1", Resource: resource, Subresource: sub, ResourceRequest: true}
	}
	for name, tc := range map[string]struct {
		request authorizer.AttributesRecord
		want    audit.Level
	}{
		"health":                    {authorizer.AttributesRecord{User: human, Verb: "get", Path: "/readyz"}, audit.LevelNone},
		"lease":                     {resource(kubelet, "update", "coordination.k8s.io", "leases", ""), audit.LevelNone},
		"event":                     {resource(kubelet, "create", "", "events", ""), audit.LevelNone},
		"node status":               {resource(kubelet, "patch", "", "nodes", "status"), audit.LevelNone},
		"cache of the manager":      {resource(manager, "list", "", "secrets", ""), audit.LevelNone},
		"manager reads one secret":  {resource(manager, "get", "", "secrets", ""), audit.LevelMetadata},
		"kubelet reads one secret":  {resource(kubelet, "get", "", "secrets", ""), audit.LevelMetadata},
		"human reads a secret":      {resource(human, "get", "", "secrets", ""), audit.LevelMetadata},
		"human lists secrets":       {resource(human, "list", "", "secrets", ""), audit.LevelMetadata},
		"master lists secrets":      {resource(master, "list", "", "secrets", ""), audit.LevelMetadata},
		"human writes a secret":     {resource(human, "create", "", "secrets", ""), audit.LevelMetadata},
		"human makes a token":       {resource(human, "create", "", "serviceaccounts", "token"), audit.LevelMetadata},
		"human changes rights":      {resource(human, "create", "rbac.authorization.k8s.io", "clusterrolebindings", ""), audit.LevelRequest},
		"human reads rights":        {resource(human, "get", "rbac.authorization.k8s.io", "clusterrolebindings", ""), audit.LevelMetadata},
		"human enters a container":  {resource(human, "create", "", "pods", "exec"), audit.LevelMetadata},
		"human deletes a pod":       {resource(human, "delete", "", "pods", ""), audit.LevelMetadata},
		"manager watches pods":      {resource(manager, "watch", "", "pods", ""), audit.LevelNone},
		"kubelet creates something": {resource(kubelet, "create", "", "pods", ""), audit.LevelMetadata},
	} {
		if got := evaluator.EvaluatePolicyRule(tc.request).Level; got != tc.want {
			t.Errorf("%s: logged at %s, want %s", name, got, tc.want)
		}
	}
}

// TestNoSecretBodies holds for whatever rules are added later.
func TestNoSecretBodies(t *testing.T) {
	var policy auditv1.Policy
	if err := yaml.UnmarshalStrict(Audit(), &policy); err != nil {
		t.Fatal(err)
	}
	for i, rule := range policy.Rules {
		if rule.Level != auditv1.LevelRequest && rule.Level != auditv1.LevelRequestResponse {
			continue
		}
		if len(rule.Resources) == 0 {
			t.Errorf("rule %d logs the content of everything", i)
		}
		for _, r := range rule.Resources {
			if r.Group == "" {
				t.Errorf("rule %d logs content of the core group, where secrets are", i)
			}
		}
	}
}
