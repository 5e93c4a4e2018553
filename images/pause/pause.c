/*
 * pause keeps the namespaces of a pod alive. It is the first process of every
 * sandbox: it holds the network and IPC namespaces, and as PID 1 of a pod with
 * a shared PID namespace it reaps the children others leave behind.
 *
 * Built by `bothy image build` as  cc -Os -static -s pause.c ; it uses nothing
 * but system calls, so that each pod costs a few pages of memory.
 */
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int sig) {
	(void)sig;
	_exit(0);
}

static void reap(int sig) {
	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int handle(int sig, void (*handler)(int), int flags) {
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};
	return sigaction(sig, &sa, NULL);
}

int main(void) {
	/* As PID 1, signals without a handler are ignored by the kernel. */
	if (handle(SIGINT, end, 0) < 0 || handle(SIGTERM, end, 0) < 0)
		return 1;
	if (handle(SIGCHLD, reap, SA_NOCLDSTOP) < 0)
		return 2;
	for (;;)
		pause();
}
