package settings

import "strconv"

const mebibyte = 1 << 20

// What the node's own processes need, measured on an idle node and rounded up.
// It is withheld from pods, so that the scheduler does not give away memory
// that the control plane lives in.
const (
	controlPlaneMiB, controlPlaneMilliCPU = 512, 200
	workerMiB, workerMilliCPU             = 192, 100
)

func reserved(in Input) map[string]string {
	mib, cpu := controlPlaneMiB, controlPlaneMilliCPU
	if in.Machine.IsWorker() {
		mib, cpu = workerMiB, workerMilliCPU
	}
	// On a very small machine keep a quarter, or there is nothing left for pods.
	if quarter := int(in.Memory / 4 / mebibyte); quarter > 0 {
		mib = min(mib, quarter)
	}
	return map[string]string{"memory": strconv.Itoa(mib) + "Mi", "cpu": strconv.Itoa(cpu) + "m"}
}
