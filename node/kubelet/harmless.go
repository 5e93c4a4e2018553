package kubelet

// harmless are messages at level error that belong to every healthy start: the
// kubelet is up before the API server, its own first measurements and its
// files.
func harmless() []string {
	return []string{
		// Until the API server answers.
		"Unable to register mirror pod because node is not registered yet",
		"Error getting the current node from lister",
		"Failed to get node when trying to set owner ref to the node lease",
		"Eviction manager: failed to get summary stats",
		"Server rejected event (will not retry!)", // the namespace default is made a moment later
		// Until the first round of measurements.
		"Skipping pod synchronization",
		"Image garbage collection failed once. Stats initialization may not have completed yet",
		"eviction manager: failed to check if we have separate container filesystem. Ignoring.",
		// At the first start of all.
		"Failed to read data from checkpoint",
		// Without CAP_SYS_RESOURCE, as long as the process lives; the limits of
		// pods protect it.
		"Failed to ensure process in container with oom score",
	}
}
