package agent

import (
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/bothy-os/bothy/os/boot"
)

var started = time.Date(2026, 1, 1, 12, 0, 0, 500e6, time.UTC)

func pod(created time.Duration, ready bool, state, last corev1.ContainerState) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", CreationTimestamp: metav1.NewTime(started.Add(created))}}
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: state, LastTerminationState: last}}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	return p
}

func runningSince(d time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(started.Add(d))}}
}

func endedSince(d time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: metav1.NewTime(started.Add(d))}}
}

func TestPodsFromBeforeTheStartAreStaleUntilTheyAreBack(t *testing.T) {
	none := corev1.ContainerState{}
	for _, c := range []struct {
		name         string
		pod          *corev1.Pod
		ready, stale bool
	}{
		{"status of the last life", pod(-time.Hour, true, runningSince(-time.Hour), none), false, true},
		{"seen by the kubelet, not started", pod(-time.Hour, false, none, endedSince(-time.Hour)), false, true},
		{"started, not ready", pod(-time.Hour, false, runningSince(time.Second), none), false, true},
		{"back", pod(-time.Hour, true, runningSince(time.Second), endedSince(-time.Hour)), true, false},
		{"back within the second of the start", pod(-time.Hour, true, runningSince(-400*time.Millisecond), none), true, false},
		{"crashes by itself", pod(-time.Hour, false, none, endedSince(time.Second)), false, false},
		{"new and starting", pod(time.Second, false, none, none), false, false},
	} {
		n := newNodeWatch(slog.New(slog.DiscardHandler), &boot.Environment{StartedAt: started.UnixNano()}, "")
		n.notePod(c.pod, watch.Added)
		got := n.podCounts()
		if (got.Ready == 1) != c.ready || (got.Stale == 1) != c.stale || got.Total != 1 {
			t.Errorf("%s: %+v", c.name, got)
		}
		n.notePod(c.pod, watch.Deleted)
		if n.podCounts().Total != 0 {
			t.Errorf("%s: is still there after deletion", c.name)
		}
	}
}

func TestURLsFollowServices(t *testing.T) {
	n := newNodeWatch(slog.New(slog.DiscardHandler), &boot.Environment{}, "")
	n.address = "192.0.2.1"
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
		{Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}, {Port: 53, NodePort: 30053, Protocol: corev1.ProtocolUDP}, {Port: 81, Protocol: corev1.ProtocolTCP},
	}}}
	n.noteService(svc, watch.Added)
	if _, _, urls := n.get(); len(urls) != 1 || urls[0] != "http://192.0.2.1:30080" {
		t.Errorf("%v", urls)
	}
	svc.Spec.Ports[0].NodePort = 30081
	n.noteService(svc, watch.Modified)
	if _, _, urls := n.get(); len(urls) != 1 || urls[0] != "http://192.0.2.1:30081" {
		t.Errorf("after a change: %v", urls)
	}
	n.noteService(svc, watch.Deleted)
	if _, _, urls := n.get(); len(urls) != 0 {
		t.Errorf("after deletion: %v", urls)
	}
}
