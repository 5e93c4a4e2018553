package flows

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/netdata/maps"
)

func TestFilter(t *testing.T) {
	events := map[string]maps.Event{
		"pods":     newFlow("10.244.1.2:1000", "10.244.1.3:80", ""),
		"service":  newFlow("10.244.1.2:1000", "10.244.1.3:8080", "10.96.0.20:5432"),
		"nodeport": newFlow("198.51.100.4:1000", "10.244.1.2:8080", "192.168.50.1:30080"),
		"outside":  newFlow("10.244.2.9:1000", "192.0.2.7:443", ""),
		"dropped":  denied(maps.EventDrop, spoofed, maps.HookFromPod, "10.244.9.9:1000", "10.244.1.3:80"),
		"refused":  denied(maps.EventRefuse, noEndpoint, maps.HookFromPod, "10.244.1.2:1000", "10.96.0.20:5432"),
		"closed":   {Kind: maps.EventEnd, Tuple: newFlow("10.244.1.2:1000", "10.244.1.3:80", "").Tuple},
	}
	for query, want := range map[string]string{
		"":                            "pods service nodeport outside dropped refused",
		"ends=1":                      "pods service nodeport outside dropped refused closed",
		"pod=web-0":                   "pods service nodeport refused",
		"pod=shop/web-0":              "pods service nodeport refused",
		"pod=ops/web-0":               "",
		"pod=web-*":                   "pods service nodeport outside refused",
		"pod=web-1&pod=db-0":          "pods service outside dropped",
		"namespace=ops":               "outside",
		"namespace=shop":              "pods service nodeport dropped refused",
		"from=web-0":                  "pods service refused",
		"from=outside":                "nodeport dropped",
		"from=198.51.100.0/24":        "nodeport",
		"from=198.51.100.4":           "nodeport",
		"to=shop/db-0":                "pods service dropped",
		"to=shop/db":                  "service refused",
		"to=example.*":                "outside",
		"to=outside":                  "outside",
		"from=web-*&to=outside":       "outside",
		"service=db":                  "service refused",
		"service=shop/*":              "service nodeport refused",
		"port=80":                     "pods dropped",
		"port=5432":                   "service refused",
		"port=80&port=443":            "pods outside dropped",
		"proto=tcp":                   "pods service nodeport outside dropped refused",
		"proto=udp":                   "",
		"verdict=dropped":             "dropped",
		"verdict=refused":             "refused",
		"verdict=forwarded":           "pods service nodeport outside",
		"reason=spoofed-*":            "dropped",
		"reason=refused-no-endpoint":  "refused",
		"verdict=dropped&to=shop/web": "",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(values)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		var got []string
		for _, name := range strings.Fields("pods service nodeport outside dropped refused closed") {
			e := events[name]
			flow := describe(&e, time.Time{}, fakeNames{})
			matches := f.Match(&flow)
			if matches {
				got = append(got, name)
			}
			if raised := f.Kinds()&maps.Kinds(e.Kind) != 0; matches && !raised {
				t.Errorf("%s: %s matches, and would not be raised", query, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: chooses %v, want %s", query, got, want)
		}
		if again, err := ParseFilter(f.Query()); err != nil || !reflect.DeepEqual(again, f) {
			t.Errorf("%s: the filter's own query gives %+v (%v), want %+v", query, again, err, f)
		}
	}
}

func TestFilterRefusesNonsense(t *testing.T) {
	for query, want := range map[string]string{
		"verdict=lost":  "want forwarded, dropped or refused",
		"reason=none":   "not known: want one of",
		"proto=carrier": "want tcp, udp",
		"port=70000":    "from 0 to 65535",
		"port=http":     "from 0 to 65535",
		"pod=a/b/c":     "namespace/name",
		"pod=":          "namespace/name",
		"from=[":        "namespace/name",
		"color=red":     "color: no such filter",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFilter(values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

// What nobody wants must not be raised at all.
func TestFilterKinds(t *testing.T) {
	for _, tc := range []struct {
		filter Filter
		want   maps.EventKinds
	}{
		{Filter{}, maps.AllEvents &^ maps.Kinds(maps.EventEnd)},
		{Filter{Ends: true}, maps.AllEvents},
		{Filter{Verdicts: []Verdict{Dropped}}, maps.Kinds(maps.EventDrop)},
		{Filter{Verdicts: []Verdict{Refused, Dropped}}, maps.Kinds(maps.EventDrop, maps.EventRefuse)},
		{Filter{Reasons: []string{"malformed"}}, maps.Kinds(maps.EventDrop, maps.EventRefuse)},
		{Filter{Verdicts: []Verdict{Forwarded}}, maps.Kinds(maps.EventNew, maps.EventConnect)},
	} {
		if got := tc.filter.Kinds(); got != tc.want {
			t.Errorf("%+v: kinds %b, want %b", tc.filter, got, tc.want)
		}
	}
}
