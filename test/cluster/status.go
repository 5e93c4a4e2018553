package cluster

import "time"

// Status is the part of `bothy status -o json` that tests look at.
type Status struct {
	Node struct {
		Name      string
		IP        string
		Ready     bool
		Reason    string
		BootID    string
		TrustNone bool
		Role      string
		Identity  string
		Held      bool
	}
	Processes []struct {
		Name string
		PID  int
	}
	Components []Component
	Git        GitStatus
	URLs       []string
	Imports    *struct{ Denied map[string]string }
	Milestones map[string]float64
	Machines   []struct {
		Name, Reason  string
		Joined, Ready bool
	}
	Network *struct {
		Nodes struct{ Routes, Problems []string }
	}
}

// Component is one part of bothy's processes.
type Component struct {
	Process   string
	Name      string
	State     string
	Restarts  int
	LastError string
}

// GitStatus is the way from the repository to the cluster.
type GitStatus struct {
	Source struct {
		URL              string
		LastError        string
		UnreachableSince *time.Time
	}
	Accepted *Acceptance
	Rejected *Refusal
	Applied  *struct{ Commit string }
	Phase    string
	Message  string
	Objects  struct {
		Total, Ready int
		Failed       []Failure
	}
}

// Acceptance is the commit that is the cluster.
type Acceptance struct {
	Commit, Subject, Signer, Kind, Fingerprint string
}

// Refusal is a commit that is not, and why.
type Refusal struct {
	Commit, Subject, Author, Rule, Problem, Remedy string
}

// Failure is an object that is not as Git wants it, and why.
type Failure struct {
	Object          any
	Problem, Remedy string
}

// UpResult is what `bothy up -o json` prints.
type UpResult struct {
	Node, NodeIP, Kubeconfig, Commit, Signer string
	URLs                                     []string
	Took                                     float64
	Milestones                               map[string]float64
	Nodes                                    []struct{ Node, NodeIP string }
}
