package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/kube"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/settings"
	"github.com/bothy-os/bothy/reconciler"
)

// What settings on trial may have to prove: whatever worked before.
const (
	needRoute = "default route"
	needGit   = "repository"
	needAPI   = "API"
)

// settingsPart is what the reconciler calls the settings of the machine.
const settingsPart = "settings"

// settingsKeeper tries and keeps settings: an [settings.Engine] in this process, or a
// [settings.Client] of the one in `bothy-init machine`.
type settingsKeeper interface {
	Run(ctx context.Context) error
	// Status is nil while nobody can say.
	Status() (*settings.Status, <-chan struct{})
	Propose(ctx context.Context, p settings.Proposal)
	Confirm(ctx context.Context, hash string)
	Forget(ctx context.Context)
}

// ownEngine is an engine as settingsKeeper wants it.
type ownEngine struct{ *settings.Engine }

func (e ownEngine) Status() (*settings.Status, <-chan struct{}) {
	st, changed := e.Engine.Status()
	return &st, changed
}

// newSettings returns the keeper of this machine's settings. On a machine that does other
// things, too, only what the node's namespaces have to themselves is set.
func (h *hall) newSettings() (settingsKeeper, error) {
	log := h.log.With("wing", "settings")
	if h.env.Appliance {
		return settings.NewClient(boot.MachineSocket, log), nil
	}
	part := &settings.Sysctls{Root: "/proc/sys", OriginalsFile: filepath.Join(boot.RunDir, "sysctls.json"), Only: settings.Namespaced}
	e, err := settings.Open(settings.Config{
		Dir: filepath.Join(boot.StateDir, "os", "settings"), Parts: []settings.Part{part}, Ignored: ignoredInNode, Log: log,
	})
	if err != nil {
		return nil, err
	}
	e.Start(context.Background(), part)
	return ownEngine{e}, nil
}

// ignoredInNode lists the settings that have no effect on a machine that does other things,
// too.
func ignoredInNode(s *settings.Settings) []string {
	var out []string
	for name := range s.Sysctls {
		if !settings.Namespaced(v1alpha1.SysctlPath(name)) {
			out = append(out, "sysctl "+strings.ReplaceAll(name, "/", "."))
		}
	}
	slices.Sort(out)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"modules", len(s.Modules) > 0},
		{"kernelArguments", len(s.KernelArguments) > 0},
		{"dns", len(s.DNS) > 0},
		{"ntp", len(s.NTP) > 0},
		{"hostname", s.Hostname != ""},
		{"interfaces", len(s.Interfaces) > 0},
		{"disks", len(s.Disks) > 0},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

// settingsComponent keeps the settings of the machine in step with the accepted commit.
func (h *hall) settingsComponent() supervise.Component {
	return supervise.Component{Name: "machine-settings", Run: func(ctx context.Context, ready func()) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- h.settings.Run(ctx) }()
		ready()
		f := &settingsFollower{hall: h, keeper: h.settings}
		go f.run(ctx)
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return nil
		}
	}}
}

// settingsFollower proposes what commits say, and confirms what works.
type settingsFollower struct {
	*hall
	keeper settingsKeeper
	// since is when this process began to wait for the API, which a machine that starts
	// does not have yet.
	since time.Time
}

const (
	// lookAgain is the pause between two looks at whether settings on trial work.
	lookAgain = 2 * time.Second
	// steady is how long everything has to work before they count: some faults take a
	// moment to show.
	steady = 10 * time.Second
	// probeLimit is for one question to the API server.
	probeLimit = 5 * time.Second
)

func (f *settingsFollower) run(ctx context.Context) {
	f.since = time.Now()
	var goodSince time.Time
	for ctx.Err() == nil {
		st, changed := f.keeper.Status()
		snap, accepted := f.reconciler.Accepted()
		again := time.Duration(0)
		if st != nil && snap != nil {
			next, err := decodeSite(snap, f.boot.Repository.Path, f.env.Name)
			if err == nil && f.objection(next) == nil {
				again = f.step(ctx, st, snap.Commit, &next.system, &goodSince)
			}
		}
		var tick <-chan time.Time
		if again > 0 {
			tick = time.After(again)
		}
		select {
		case <-changed:
		case <-accepted:
		case <-tick:
		case <-ctx.Done():
		}
	}
}

// step does what there is to do now, and says when to look again; 0 is when something changes.
func (f *settingsFollower) step(ctx context.Context, st *settings.Status, commit string, want *settings.Settings, goodSince *time.Time) time.Duration {
	f.mark(st, commit, want)
	hash := settings.Hash(want)
	switch {
	case st.Trial != nil && st.Trial.Hash() == hash:
		return f.prove(ctx, st.Trial, goodSince)
	case st.Trial == nil && st.Undone != nil && st.Undone.Hash == hash:
		return 0 // it was tried
	case st.Trial == nil && st.Undone == nil && st.Hash == hash:
		return 0 // it is in force
	}
	needs := f.works(ctx, time.Time{})
	if st.Trial != nil {
		needs = st.Trial.Needs // what worked before either of them
	} else if st.Hash != hash && !slices.Contains(needs, needAPI) && time.Since(f.since) < want.RevertAfter.Duration {
		// The API of a machine that starts needs its time. Settings tried before could
		// not be blamed for its absence.
		return lookAgain
	}
	*goodSince = time.Time{}
	f.keeper.Propose(ctx, settings.Proposal{Commit: commit, Settings: *want, Needs: needs})
	return lookAgain // what was sent may be lost
}

// prove confirms a trial once everything that it needs has worked for a while.
func (f *settingsFollower) prove(ctx context.Context, trial *settings.Trial, goodSince *time.Time) time.Duration {
	if !trial.Applied {
		return 0
	}
	works := f.works(ctx, trial.Began)
	for _, need := range trial.Needs {
		if !slices.Contains(works, need) {
			*goodSince = time.Time{}
			if need == needGit {
				f.reconciler.Trigger()
			}
			return lookAgain
		}
	}
	if goodSince.IsZero() {
		*goodSince = time.Now()
	}
	if time.Since(*goodSince) < steady {
		return lookAgain
	}
	f.keeper.Confirm(ctx, trial.Hash())
	return lookAgain
}

// works lists what works at the moment. The repository has to have been read after a time.
func (f *settingsFollower) works(ctx context.Context, since time.Time) []string {
	var out []string
	if hasRoute() {
		out = append(out, needRoute)
	}
	if s := f.reconciler.Status().Source; s.LastError == "" && s.LastFetch != nil && s.LastFetch.After(since) {
		out = append(out, needGit)
	}
	if err := f.askAPI(ctx); err == nil {
		out = append(out, needAPI)
	}
	return out
}

// askAPI asks the API server, by a connection of its own, whether it is ready.
func (f *settingsFollower) askAPI(ctx context.Context) error {
	config, err := kube.Config(f.paths.Kubeconfig(statusIdentity), "machine-settings")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("ask the API server whether it is ready: %w", err)
	}
	return nil
}

// hasRoute says whether there is a way out.
func hasRoute() bool {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if r.Dst == nil {
				return true
			}
			if bits, _ := r.Dst.Mask.Size(); bits == 0 && r.Type != unixUnreachable {
				return true
			}
		}
	}
	return false
}

// unixUnreachable is RTN_UNREACHABLE of uapi/linux/rtnetlink.h.
const unixUnreachable = 7

// mark has the accepted commit show what became of its settings.
func (f *settingsFollower) mark(st *settings.Status, commit string, want *settings.Settings) {
	u := st.Undone
	if u == nil || u.Hash != settings.Hash(want) {
		f.reconciler.MarkMachine(settingsPart, nil)
		return
	}
	f.reconciler.MarkMachine(settingsPart, &reconciler.MachineProblem{
		Commit: commit, Reason: "MachineSettingsUndone",
		Message: fmt.Sprintf("the machine's settings of commit %.12s were undone on %s, those of before are in force: %s; correct spec.system and push, or try them again with `bothy machine settings --retry`", u.Commit, f.env.Name, u.Reason),
	})
}

// settingsStatus is what is said of the machine's settings; nil while nobody can say.
func (h *hall) settingsStatus() *settings.Status {
	st, _ := h.settings.Status()
	return st
}

var errNoSettings = errors.New("the keeper of the machine's settings cannot be reached: it may be starting, see `bothy logs kernel`")

// serveSettingsRetry forgets that settings were undone.
func (h *hall) serveSettingsRetry(w http.ResponseWriter, r *http.Request) {
	if h.settingsStatus() == nil {
		http.Error(w, errNoSettings.Error(), http.StatusServiceUnavailable)
		return
	}
	h.settings.Forget(r.Context())
}

// RetrySettings has settings that were undone be tried again.
func (c *Client) RetrySettings(ctx context.Context) error {
	body, err := call(ctx, c.socket, http.MethodPost, "/v1/settings/retry", nil)
	if err != nil {
		return err
	}
	return body.Close()
}
