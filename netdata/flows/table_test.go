package flows

import (
	"errors"
	"testing"

	"github.com/bothy-os/bothy/netdata/maps"
)

type fakeConntrack struct {
	flows        []maps.Flow
	translations []maps.Translation
	err          error
}

func (c fakeConntrack) Flows(visit func(maps.Flow)) error {
	for _, f := range c.flows {
		visit(f)
	}
	return c.err
}

func (c fakeConntrack) Translations(visit func(maps.Translation)) error {
	for _, t := range c.translations {
		visit(t)
	}
	return nil
}

func tuple(src, dst string) maps.Tuple {
	return maps.Tuple{Src: ap(src), Dst: ap(dst), Proto: maps.TCP}
}

func TestTable(t *testing.T) {
	now, err := maps.Now()
	if err != nil {
		t.Fatal(err)
	}
	toDB, toWorld := tuple("10.244.1.2:1000", "10.244.1.3:8080"), tuple("10.244.1.2:2000", "192.0.2.7:443")
	asked, masqueraded := tuple("10.244.1.2:1000", "10.96.0.20:5432"), tuple("192.168.50.1:50000", "192.0.2.7:443")
	c := fakeConntrack{
		flows: []maps.Flow{
			{Tuple: toDB.Reverse(), Flags: maps.FlowSwapped | maps.FlowReplied | maps.FlowNAT, Seen: now - 10},
			{Tuple: toWorld, Flags: maps.FlowReplied | maps.FlowFinOrig, Seen: now + 1, Revision: 3},
		},
		translations: []maps.Translation{
			{From: asked, To: toDB},
			{From: toDB.Reverse(), To: asked.Reverse()},
			{From: toWorld, To: masqueraded},
			{From: masqueraded.Reverse(), To: toWorld.Reverse()},
		},
	}
	got, err := Table(c, Filter{}, fakeNames{})
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	db, world := got[0], got[1]
	if db.From.String() != "shop/web-0:1000" || db.To.String() != "shop/db-0:8080" || db.Asked.String() != "service shop/db:5432" {
		t.Errorf("to the Service: %s -> %s via %s", db.From, db.To, db.Asked)
	}
	if db.State != maps.FlowEstablished || db.Idle < maps.Duration(9) || db.Masquerade != "" {
		t.Errorf("to the Service: %+v", db)
	}
	if world.To.String() != "example.org:443" || world.Asked != nil || world.Masquerade != "192.168.50.1:50000" ||
		world.State != maps.FlowClosing || world.Idle != 0 || world.Revision != 3 {
		t.Errorf("to the outside: %+v", world)
	}
	if got, err = Table(c, Filter{Services: []string{"db"}}, fakeNames{}); err != nil || len(got) != 1 {
		t.Errorf("filtered: %+v %v", got, err)
	}
	c.err = errors.New("torn")
	if _, err := Table(c, Filter{}, fakeNames{}); !errors.Is(err, c.err) {
		t.Errorf("a table that cannot be read: %v", err)
	}
}
