package machine

import "testing"

func TestRoomIsShownWhereThereIsNone(t *testing.T) {
	const mebibyte = 1 << 20
	for _, c := range []struct {
		size, free uint64
		want       string
	}{
		{0, 0, ""},
		{6000 * mebibyte, 300 * mebibyte, ""},
		{6000 * mebibyte, 299 * mebibyte, "almost full: 299 of 6000 MiB are free; a commit that takes away what fills it is still applied"},
		{6000 * mebibyte, mebibyte - 1, "full: 0 of 6000 MiB are free; a commit that takes away what fills it is still applied"},
		{4 << 40, enough, ""},
		{4 << 40, enough - 1, "almost full: 1023 of 4194304 MiB are free; a commit that takes away what fills it is still applied"},
	} {
		if got := room(c.size, c.free); got != c.want {
			t.Errorf("%d of %d bytes: %q, want %q", c.free, c.size, got, c.want)
		}
	}
}
