package apply_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFailuresDoNotQuoteSecrets(t *testing.T) {
	c := newCluster(t)
	for _, message := range []string{
		`data.token: Invalid value: "hunter\"2hunter2": is wrong`,
		`failed to create typed patch object: .data.token: expected string, got &value.valueUnstructured{Value:hunter2}`,
	} {
		c.Refuse(func(method, path string, _ map[string]any) *metav1.Status {
			if method == "PATCH" {
				return &metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid, Message: message}
			}
			return nil
		})
		c.set("1", strings.Replace(secret, "%", "aHVudGVyMg==", 1))
		pass := c.sync()
		if len(pass.Failures) != 1 {
			t.Fatalf("pass %+v", pass)
		}
		if text := pass.Failures[0].Error(); strings.Contains(text, "hunter") || !strings.Contains(text, "data.token") {
			t.Errorf("the failure says %q", text)
		}
	}
}
