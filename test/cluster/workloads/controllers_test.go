package workloads

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

// A Deployment replaces a pod that is deleted.
func TestDeploymentHeals(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, deployment("app", 2, "serve"))
	k.Rollout(t, patience, "deployment/app")
	before, err := k.Pods(t.Context(), "-l", "app=app")
	if err != nil || len(before) != 2 {
		t.Fatalf("two pods were expected: %v, %v", before, err)
	}
	victim := before[0].Metadata
	k.Run(t, "delete", "pod", victim.Name, "--wait=false")
	cluster.Eventually(t, patience, "a new pod in place of "+victim.Name, func() error {
		now, err := k.Pods(t.Context(), "-l", "app=app")
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range now {
			if p.Metadata.UID != victim.UID && p.Ready() {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d pods are Ready", ready)
		}
		return nil
	})
}

// A DaemonSet has one pod on the node, and gives it back when it is deleted.
func TestDaemonSetCoversTheNode(t *testing.T) {
	t.Parallel()
	node, _ := shared.Node(t)
	k := shared.Kubectl(t)
	k.Apply(t, fmt.Sprintf(`{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "each"},
		"spec": {"selector": {"matchLabels": {"app": "each"}}, "template": %s}}`, podTemplate("each", "serve")))
	k.Rollout(t, patience, "daemonset/each")
	if got := k.Run(t, "get", "pods", "-l", "app=each", "-o", "jsonpath={.items[*].spec.nodeName}"); got != node.Name {
		t.Errorf("the pods are on %q", got)
	}
	k.Run(t, "delete", "pods", "-l", "app=each")
	k.FieldIs(t, patience, "daemonset/each", "{.status.numberReady}", "1")
}

// A Job runs to its end; one that keeps failing gives up and says so.
func TestJobCompletesOrFails(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	job := func(name, limits string, args ...string) string {
		template := strings.Replace(podTemplate(name, args...), `"spec": {`, `"spec": {"restartPolicy": "Never", `, 1)
		return fmt.Sprintf(`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": %q}, "spec": {%s, "template": %s}}`, name, limits, template)
	}
	k.Apply(t, job("works", `"completions": 3, "parallelism": 2`, "env"))
	k.Apply(t, job("fails", `"backoffLimit": 1`, "cat", "/no/such/file"))
	k.Run(t, "wait", "--for=condition=Complete", "job/works", "--timeout", patience.String())
	if got := k.Run(t, "get", "job", "works", "-o", "jsonpath={.status.succeeded}"); got != "3" {
		t.Errorf("%s of 3 pods succeeded", got)
	}
	if out := k.Run(t, "logs", "job/works"); !strings.Contains(out, "identity=works-") {
		t.Errorf("the log of the job's pod is %q", out)
	}
	k.Run(t, "wait", "--for=condition=Failed", "job/fails", "--timeout", patience.String())
	if got := k.Run(t, "get", "job", "fails", "-o", "jsonpath={.status.conditions[?(@.type=='Failed')].reason}"); got != "BackoffLimitExceeded" {
		t.Errorf("the job failed because of %q", got)
	}
}

// A CronJob starts a Job of its own when its minute comes.
func TestCronJobRuns(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	template := strings.Replace(podTemplate("tick", "env"), `"spec": {`, `"spec": {"restartPolicy": "Never", `, 1)
	k.Apply(t, fmt.Sprintf(`{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
		"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": %s}}}}`, template))
	cluster.Eventually(t, 2*patience, "the CronJob to have run once", func() error {
		got, err := k.Field(t.Context(), "cronjob/tick", "{.status.lastSuccessfulTime}")
		if err == nil && got == "" {
			err = fmt.Errorf("it has not")
		}
		return err
	})
}

// A HorizontalPodAutoscaler adds pods when they burn CPU. That needs the whole
// chain: kubelet, metrics API, controller.
func TestHorizontalPodAutoscalerScalesUp(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, deployment("busy", 1, "burn"))
	k.Rollout(t, patience, "deployment/busy")
	k.Run(t, "autoscale", "deployment/busy", "--min=1", "--max=2", "--cpu=50%")
	cluster.Eventually(t, 3*patience, "the autoscaler to add a pod", func() error {
		got, err := k.Field(t.Context(), "deployment/busy", "{.spec.replicas}")
		if err == nil && got != "2" {
			why, _ := k.Field(t.Context(), "hpa/busy", "{.status.conditions[*].message}")
			err = fmt.Errorf("replicas: %s; %s", got, why)
		}
		return err
	})
	k.Run(t, "delete", "deployment/busy", "--wait=false")
}

// An eviction that would break the budget is refused; a plain delete is not
// what the budget is about.
func TestPodDisruptionBudgetRefusesEviction(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, deployment("guarded", 2, "serve"))
	k.Run(t, "create", "poddisruptionbudget", "guarded", "--selector=app=guarded", "--min-available=2")
	k.Rollout(t, patience, "deployment/guarded")
	k.FieldIs(t, patience, "pdb/guarded", "{.status.currentHealthy}", "2")
	pods, err := k.Pods(t.Context(), "-l", "app=guarded")
	if err != nil || len(pods) == 0 {
		t.Fatalf("pods: %v, %v", pods, err)
	}
	evict := func() error { return k.Evict(t.Context(), pods[0].Metadata.Name) }
	if err := evict(); err == nil || !strings.Contains(err.Error(), "disruption budget") {
		t.Fatalf("the eviction was expected to be refused because of the budget: %v", err)
	}
	k.Run(t, "patch", "pdb", "guarded", "--type=merge", "-p", `{"spec": {"minAvailable": 1}}`)
	cluster.Eventually(t, patience, "the eviction to be allowed by the smaller budget", evict)
}

// A ResourceQuota counts, and refuses what goes over it.
func TestResourceQuotaRefuses(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Run(t, "create", "quota", "small", "--hard=pods=1,configmaps=3")
	k.FieldIs(t, patience, "resourcequota/small", "{.status.hard.pods}", "1")
	startPod(t, k, "first", "sleep")
	k.FieldIs(t, patience, "resourcequota/small", "{.status.used.pods}", "1")
	if err := k.ApplyRefused(t, pod("second", "sleep")); !strings.Contains(err, "exceeded quota: small") {
		t.Errorf("the second pod was refused for another reason: %s", err)
	}
	k.Run(t, "delete", "pod", "first")
	cluster.Eventually(t, patience, "the quota to be free again", func() error {
		_, err := k.Output(t.Context(), "run", "second", "--image=bothy.local/toolbox:1", "--dry-run=server")
		return err
	})
}

// A CustomResourceDefinition makes a new kind that is validated, listed,
// defaulted and removed like any other.
func TestCustomResource(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	group := k.Namespace() + ".example.org"
	crd := "huts." + group
	k.Apply(t, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %s}
spec:
  group: %s
  names: {kind: Hut, plural: huts, singular: hut}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [beds]
              properties:
                beds: {type: integer, minimum: 1}
                stove: {type: boolean, default: true}
              x-kubernetes-validations:
                - {rule: "self.stove || self.beds < 5", message: "a large hut needs a stove"}
            status:
              type: object
              properties: {guests: {type: integer}}
`, crd, group))
	t.Cleanup(func() { k.Run(cleaning{t}, "delete", "crd", crd, "--wait=false") })
	k.Run(t, "wait", "--for=condition=Established", "crd/"+crd, "--timeout", patience.String())
	hut := func(spec string) string {
		return fmt.Sprintf(`{"apiVersion": "%s/v1", "kind": "Hut", "metadata": {"name": "corrour"}, "spec": %s}`, group, spec)
	}
	if err := k.ApplyRefused(t, hut(`{"beds": "many"}`)); !strings.Contains(err, "spec.beds") {
		t.Errorf("the wrong type was refused with %s", err)
	}
	if err := k.ApplyRefused(t, hut(`{"beds": 9, "stove": false}`)); !strings.Contains(err, "a large hut needs a stove") {
		t.Errorf("the rule was refused with %s", err)
	}
	k.Apply(t, hut(`{"beds": 8}`))
	object := crd + "/corrour"
	if got := k.Run(t, "get", object, "-o", "jsonpath={.spec.stove}"); got != "true" {
		t.Errorf("the default of stove is %q", got)
	}
	k.Run(t, "patch", object, "--subresource=status", "--type=merge", "-p", `{"status": {"guests": 3}}`)
	if got := k.Run(t, "get", object, "-o", "jsonpath={.status.guests} {.spec.beds}"); got != "3 8" {
		t.Errorf("status and spec are %q", got)
	}
	k.Run(t, "delete", object)
}
