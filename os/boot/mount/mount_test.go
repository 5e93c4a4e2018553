package mount

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// calls lists the system calls that a command line becomes.
func calls(t *testing.T, line string) []string {
	t.Helper()
	r, err := parse(strings.Fields(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	var out []string
	err = r.do(func(source, target, fstype string, flags uintptr, data string) error {
		out = append(out, fmt.Sprintf("%s|%s|%s|%#x|%s", source, target, fstype, flags, data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestArgumentsBecomeCalls(t *testing.T) {
	bind := fmt.Sprintf("%#x", unix.MS_BIND)
	for line, want := range map[string][]string{
		"-t tmpfs -o size=64m,noexec tmpfs /a":     {fmt.Sprintf("tmpfs|/a|tmpfs|%#x|size=64m", unix.MS_NOEXEC)},
		"--no-canonicalize -o bind /a /b":          {"/a|/b||" + bind + "|"},
		"-o bind,ro /a /b":                         {"/a|/b||" + bind + "|", fmt.Sprintf("|/b||%#x|", unix.MS_BIND|unix.MS_RDONLY|unix.MS_REMOUNT)},
		"--make-rshared /a":                        {fmt.Sprintf("|/a||%#x|", unix.MS_SHARED|unix.MS_REC)},
		"-o bind,remount,nosuid /a":                {fmt.Sprintf("|/a||%#x|", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID)},
		"-t ext4 -o defaults,x-y=1,prjquota /d /m": {"/d|/m|ext4|0x0|prjquota"},
	} {
		if got := calls(t, line); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", line, got, want)
		}
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	for _, line := range []string{"", "-o", "--frobnicate /a /b", "/a /b /c"} {
		if _, err := parse(strings.Fields(line)); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
	if err := Unmount([]string{"-x", "/a"}); err == nil {
		t.Error("an unknown option of umount is accepted")
	}
	if err := Unmount([]string{t.TempDir()}); err == nil || !strings.Contains(err.Error(), "not mounted") && !strings.Contains(err.Error(), "permitted") {
		t.Errorf("%v", err)
	}
}
