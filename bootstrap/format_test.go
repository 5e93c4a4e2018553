package bootstrap

import "testing"

func TestNewerFormat(t *testing.T) {
	own := Format()
	if NewerFormat(own, own) {
		t.Errorf("%q is newer than itself", own)
	}
	for _, c := range []struct {
		format, than string
		want         bool
	}{
		{"etcd 3.6, kubernetes 1.37", "etcd 3.6, kubernetes 1.37", false},
		{"etcd 3.6, kubernetes 1.36", "etcd 3.6, kubernetes 1.37", false},
		{"etcd 3.6, kubernetes 1.38", "etcd 3.6, kubernetes 1.37", true},
		{"etcd 3.7, kubernetes 1.37", "etcd 3.6, kubernetes 1.37", true},
		{"etcd 4.0, kubernetes 1.36", "etcd 3.6, kubernetes 1.37", true},
		{"etcd 3.10, kubernetes 1.37", "etcd 3.9, kubernetes 1.37", true},
		{"something else", "etcd 3.6, kubernetes 1.37", true},
	} {
		if got := NewerFormat(c.format, c.than); got != c.want {
			t.Errorf("%q newer than %q: %v", c.format, c.than, got)
		}
	}
}
