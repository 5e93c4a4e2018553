package maps

// FlowState is how far a flow has come.
type FlowState string

// The states of a flow.
const (
	// FlowNew: only one side has spoken.
	FlowNew FlowState = "new"
	// FlowEstablished: both sides have.
	FlowEstablished FlowState = "established"
	// FlowClosing: one side has closed the connection.
	FlowClosing FlowState = "closing"
	// FlowClosed: both have, or one has reset it.
	FlowClosed FlowState = "closed"
)

// FlowStates are all of them, in the order of a flow's life.
func FlowStates() []FlowState {
	return []FlowState{FlowNew, FlowEstablished, FlowClosing, FlowClosed}
}

// State sums up the flags.
func (f FlowFlags) State() FlowState {
	switch {
	case f.Closed():
		return FlowClosed
	case f&(FlowFinOrig|FlowFinReply) != 0:
		return FlowClosing
	case f&FlowReplied != 0:
		return FlowEstablished
	default:
		return FlowNew
	}
}
