// Package jobs lets a reconciler do work that takes long without holding a
// worker.
//
// [Jobs] runs at most one job per object, each in a goroutine of its own. While
// one runs, a reconcile of its object returns at once; when it ends, the object
// is queued again and that reconcile returns the job's result, so that errors
// are retried and times kept exactly as if the work had been done in place. A
// change that arrived meanwhile makes the object be looked at again.
//
// How many jobs work at the same time is bounded; those that merely wait, for a
// server or for pods, do not count. A job that panics fails.
//
// The package must not know what the work is.
package jobs

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Work is what a job does. It says when the object is to be looked at again, as
// a reconcile does.
type Work func(ctx context.Context, job *Job) (ctrl.Result, error)

// Jobs runs jobs. It is a source of events of the controller whose objects the
// jobs are about, and must be watched by it.
type Jobs struct {
	slots chan struct{}

	mu    sync.Mutex
	ctx   context.Context //nolint:containedctx // the controller's life, in which jobs run
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	all   map[reconcile.Request]*Job
}

// New returns jobs of which at most active work at the same time.
func New(active int) *Jobs {
	return &Jobs{slots: make(chan struct{}, active), all: map[reconcile.Request]*Job{}}
}

// Job is one piece of work.
type Job struct {
	jobs *Jobs
	// About is whatever the reconciler wants to remember of the inputs.
	About any

	interrupt context.CancelFunc
	waiting   context.Context //nolint:containedctx // ends when the job is interrupted

	// Guarded by jobs.mu.
	done  bool
	again bool
	res   ctrl.Result
	err   error
}

// Start is called by the controller.
func (j *Jobs) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ctx, j.queue = ctx, queue
	return nil
}

// Enqueue has an object looked at.
func (j *Jobs) Enqueue(request reconcile.Request) {
	j.mu.Lock()
	queue := j.queue
	j.mu.Unlock()
	if queue != nil {
		queue.Add(request)
	}
}

// Running returns the running job of an object, or nil, and notes that the
// object is to be looked at again when the job has ended.
func (j *Jobs) Running(request reconcile.Request) *Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	job := j.all[request]
	if job == nil || job.done {
		return nil
	}
	job.again = true
	return job
}

// Finished takes the result of a job that ended. It is taken once, and only if
// nothing happened to the object meanwhile.
func (j *Jobs) Finished(request reconcile.Request) (result ctrl.Result, err error, ok bool) { //nolint:revive // the error is the job's
	j.mu.Lock()
	defer j.mu.Unlock()
	job := j.all[request]
	if job == nil || !job.done {
		return ctrl.Result{}, nil, false
	}
	delete(j.all, request)
	if job.again && job.err == nil {
		return ctrl.Result{}, nil, false
	}
	return job.res, job.err, true
}

// Run starts a job for an object that has none. about is kept for whoever finds
// it running.
func (j *Jobs) Run(request reconcile.Request, about any, work Work) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ctx == nil || j.all[request] != nil {
		return
	}
	waiting, interrupt := context.WithCancel(j.ctx)
	job := &Job{jobs: j, About: about, interrupt: interrupt, waiting: waiting}
	j.all[request] = job
	go j.run(j.ctx, request, job, work)
}

func (j *Jobs) run(ctx context.Context, request reconcile.Request, job *Job, work Work) {
	defer job.interrupt()
	res, err := job.work(ctx, work)
	j.mu.Lock()
	job.done, job.res, job.err = true, res, err
	queue := j.queue
	j.mu.Unlock()
	queue.Add(request)
}

func (job *Job) work(ctx context.Context, work Work) (res ctrl.Result, err error) {
	if err := job.acquire(ctx); err != nil {
		return ctrl.Result{}, err
	}
	defer job.release()
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("panic: %v\n%s", problem, debug.Stack())
		}
	}()
	return work(ctx, job)
}

func (job *Job) acquire(ctx context.Context) error {
	select {
	case job.jobs.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (job *Job) release() { <-job.jobs.slots }

// Wait runs something that waits rather than works: meanwhile the job does not
// count as active. Only the job's own goroutines may call it, one at a time.
func (job *Job) Wait(wait func()) {
	job.release()
	defer func() { job.jobs.slots <- struct{}{} }()
	wait()
}

// Interrupt ends the waits of the job that honour [Job.Interrupted].
func (job *Job) Interrupt() { job.interrupt() }

// Interrupted ends when the job was interrupted or the controller ends.
func (job *Job) Interrupted() context.Context { return job.waiting }

// IsRunning tells whether an object has a running job, and notes nothing.
func (j *Jobs) IsRunning(request reconcile.Request) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	job := j.all[request]
	return job != nil && !job.done
}
