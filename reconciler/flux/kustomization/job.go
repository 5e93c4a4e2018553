package kustomization

import (
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/flux/source"
)

// job is what is remembered of one Kustomization between reconciles. It is lost
// with the process; then everything is built and compared again.
//
// The fields above the mutex belong to the reconcile of the object, of which
// there is one at a time.
type job struct {
	uid    types.UID
	engine *apply.Engine
	target *target
	record *apply.Record // the inventory as the engine has it; nil before it asked

	// current is the reconcile under way, which the engine's inventory is
	// written by.
	current *attempt

	// What the last build was made from and what came of it.
	generation int64
	reads      *build.Reads
	inputs     inputs
	inputsAt   time.Time
	problem    *problem // why it failed
	result     string   // digest of its objects

	// fights are the objects that were reported to be changed again and again,
	// with who does it.
	fights map[apply.ID]string

	// mayPrune is what AllowPruneAnnotation allowed the last build.
	mayPrune bool
	// requested is the request that the last build answered, began when the work
	// started whose end is still to be reported, patience until when the object
	// waits for its source in silence, retries the attempts in a row that came
	// to nothing.
	requested string
	began     time.Time
	patience  time.Time
	retries   int

	// health is when the wait for health began that is under way; zero if none
	// is.
	health time.Time
	// turn is when a change of nothing but the revision may be written.
	turn time.Time

	// inputsStale says that something that a build reads was changed.
	inputsStale atomic.Bool

	mu sync.Mutex
	// status is what was last written; nobody else writes it.
	status kustomizev1.KustomizationStatus
	// revision is that of the artifact last built from, or of a later one that
	// was found to hold the same; digest is that of its content.
	revision, digest string
	// settled says that everything of revision is applied and healthy.
	settled bool
}

// public is what others may see of a job.
type public struct {
	status           kustomizev1.KustomizationStatus
	revision, digest string
	settled          bool
}

// has reports whether the job has worked with the artifact.
func (p public) has(artifact *source.Artifact) bool {
	return p.revision == artifact.Revision && p.digest == artifact.Digest
}

func (j *job) look() public {
	j.mu.Lock()
	defer j.mu.Unlock()
	return public{status: j.status, revision: j.revision, digest: j.digest, settled: j.settled}
}

// same reports whether a build from files would give what the last one gave.
func (j *job) same(files fs.FS) bool {
	j.mu.Lock()
	reads := j.reads
	j.mu.Unlock()
	return reads != nil && reads.Same(files)
}

// setReads keeps what a build read.
func (j *job) setReads(reads *build.Reads) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reads = reads
}

// startOn notes the artifact that is worked on.
func (j *job) startOn(artifact *source.Artifact) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.revision, j.digest, j.settled = artifact.Revision, artifact.Digest, false
}

// settle notes whether the artifact that was worked on is applied and healthy.
func (j *job) settle(settled bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.settled = settled
}

// skipTo notes that the artifact holds the same as the one that is done.
func (j *job) skipTo(artifact *source.Artifact) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.settled {
		j.revision, j.digest = artifact.Revision, artifact.Digest
	}
}

func (j *job) setStatus(s kustomizev1.KustomizationStatus) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status = s
}

// hold keeps an engine and what it works on. The reconcile of the object alone
// calls it, and reads the fields without the mutex.
func (j *job) hold(engine *apply.Engine, t *target) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.engine, j.target = engine, t
}

// release ends the engine. The objects stay in the cluster.
func (j *job) release() {
	j.stop()
	j.hold(nil, nil)
}

// stop ends what runs on behalf of the job. It may be called at any time.
func (j *job) stop() {
	j.mu.Lock()
	engine, t := j.engine, j.target
	j.mu.Unlock()
	if engine != nil {
		engine.Close()
	}
	if t != nil {
		t.stop()
	}
}

// jobs are the jobs of all objects.
type jobs struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]*job
}

func (js *jobs) find(name types.NamespacedName) *job {
	js.mu.Lock()
	defer js.mu.Unlock()
	return js.byName[name]
}

// of returns the job of an object and makes one for a new object. One that
// belonged to an earlier object of this name is returned as well, to be
// released.
func (js *jobs) of(name types.NamespacedName, o *kustomizev1.Kustomization) (j, earlier *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	j = js.byName[name]
	if j != nil && j.uid == o.UID {
		return j, nil
	}
	earlier = j
	j = &job{uid: o.UID, status: *o.Status.DeepCopy()}
	js.byName[name] = j
	return j, earlier
}

func (js *jobs) remove(name types.NamespacedName) *job {
	js.mu.Lock()
	defer js.mu.Unlock()
	j := js.byName[name]
	delete(js.byName, name)
	return j
}

func (js *jobs) all() []*job {
	js.mu.Lock()
	defer js.mu.Unlock()
	out := make([]*job, 0, len(js.byName))
	for _, j := range js.byName {
		out = append(out, j)
	}
	return out
}
