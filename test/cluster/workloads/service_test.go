package workloads

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// httpGet makes one request on a connection of its own.
func httpGet(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// The example workload answers at the URL that `bothy up` printed, and names
// the pod that answered.
func TestWorkloadAnswersFromTheHost(t *testing.T) {
	t.Parallel()
	node, up := shared.Node(t)
	if len(up.URLs) == 0 {
		t.Fatal("bothy up printed no URL")
	}
	body, err := httpGet(t.Context(), up.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	pods, err := node.Kubectl(t).In("site").Pods(t.Context(), "-l", "app=hello")
	if err != nil || len(pods) == 0 {
		t.Fatalf("pods of the example: %v, %v", pods, err)
	}
	for _, want := range []string{"first message", pods[0].Metadata.Name} {
		if !strings.Contains(body, want) {
			t.Errorf("the answer does not contain %q: %s", want, body)
		}
	}
}

// Another pod, in another namespace, reaches the Service by every form of its
// name, over TCP and UDP.
func TestServiceAnswersByNameFromAPod(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	startPod(t, k, "server", "serve")
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": {"selector": {"app": "server"}, "ports": [
		{"name": "http", "port": 80, "targetPort": 8080},
		{"name": "tcp", "port": 81, "targetPort": 8081},
		{"name": "udp", "port": 82, "targetPort": 8082, "protocol": "UDP"}]}}`)
	startPod(t, k, "client", "sleep")

	for _, name := range []string{"server", "server." + k.Namespace(), "server." + k.Namespace() + ".svc.cluster.local"} {
		cluster.Eventually(t, 15*time.Second, "http://"+name+" to answer", func() error {
			out, err := k.Exec(t.Context(), "client", "/toolbox", "get", "http://"+name+"/")
			if err != nil {
				return err
			}
			var answer struct{ Identity string }
			if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Identity != "server" {
				return fmt.Errorf("the answer is %q", out)
			}
			return nil
		})
	}
	for _, args := range [][]string{{"tcp", "server:81"}, {"udp", "server:82"}} {
		out, err := k.Exec(t.Context(), "client", append([]string{"/toolbox", "dial", "-send", "marco"}, args...)...)
		if err != nil || !strings.Contains(out, "server ") || !strings.Contains(out, "marco") {
			t.Errorf("%v: answered %q, %v", args, out, err)
		}
	}
	if out, err := k.Exec(t.Context(), "client", "/toolbox", "get", "http://hello.site/"); err != nil || !strings.Contains(out, "first message") {
		t.Errorf("the Service of another namespace answered %q, %v", out, err)
	}
	if out, err := k.Exec(t.Context(), "client", "/toolbox", "resolve", "nothing-has-this-name"); err == nil {
		t.Errorf("a name that does not exist resolved to %s", out)
	}
}

// All replicas get their share, and one that is gone gets nothing more.
func TestServiceSpreadsAndFollowsEndpoints(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, deployment("spread", 3, "serve"))
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "spread"}, "spec": {"selector": {"app": "spread"}, "ports": [{"port": 80, "targetPort": 8080}]}}`)
	startPod(t, k, "client", "sleep")
	k.Rollout(t, patience, "deployment/spread")

	answering := func(n int) map[string]int {
		out, err := k.Exec(t.Context(), "client", "/toolbox", "get", "-n", fmt.Sprint(n), "http://spread/")
		if err != nil {
			t.Fatal(err)
		}
		who := map[string]int{}
		decoder := json.NewDecoder(strings.NewReader(out))
		for {
			var a struct{ Identity string }
			if err := decoder.Decode(&a); err != nil {
				return who
			}
			who[a.Identity]++
		}
	}
	cluster.Eventually(t, patience, "all three replicas to answer", func() error {
		if who := answering(60); len(who) != 3 {
			return fmt.Errorf("answers came from %v", who)
		}
		return nil
	})
	k.Run(t, "scale", "deployment/spread", "--replicas", "1")
	cluster.Eventually(t, patience, "one replica to be left", func() error {
		pods, err := k.Pods(t.Context(), "-l", "app=spread")
		if err == nil && len(pods) != 1 {
			err = fmt.Errorf("there are %d", len(pods))
		}
		return err
	})
	if who := answering(30); len(who) != 1 {
		t.Errorf("after scaling down to one, answers came from %v", who)
	}
}

// A Service without endpoints refuses at once; a client need not wait for a
// timeout.
func TestServiceWithoutEndpointsRefuses(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	k.Apply(t, `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"}, "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}}`)
	startPod(t, k, "client", "sleep")
	cluster.Eventually(t, 15*time.Second, "the connection to be refused", func() error {
		start := time.Now()
		out, err := k.Exec(t.Context(), "client", "/toolbox", "dial", "-timeout", "10s", "tcp", "empty:80")
		switch {
		case err == nil:
			return fmt.Errorf("something answered: %s", out)
		case !strings.Contains(err.Error(), "refused"):
			return err
		case time.Since(start) > 5*time.Second:
			return fmt.Errorf("it took %s", time.Since(start))
		}
		return nil
	})
}
