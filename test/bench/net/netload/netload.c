/*
 * netload: one client and one server of a network benchmark, as small as they can
 * be, so that what is measured is the way of the packets and not the program.
 *
 *   netload [-c CPU] [-n NICE] [-6] serve echo|once|sink|datagram PORT ID
 *   netload [-c CPU] [-n NICE] [-p LOW-HIGH] rr|crr|udp|stream ADDR PORT SECONDS SERVER-PID
 *   netload watch ADDR PORT
 *
 * A client uses the source ports from LOW to HIGH: a server that is reached by several ways remembers a connection
 * for a minute, and takes another way's under the same port for an old segment of it.
 *
 * ADDR is of either family; a server is for IPv6 only with -6, and for IPv4 only without.
 *
 * serve says "listening" and then answers one connection at a time: echo with the letter
 * ID for whatever it is sent, datagram likewise, sink not at all; once answers and
 * closes, as servers of short connections do, so that the client's ports are free again.
 *
 * The clients print one line of JSON: what they did, and the CPU time that client and
 * server together spent on it. With both on the same CPU that is the whole length of the
 * path, as far as it is run in the context of either. A client to whom anything goes
 * wrong says so and fails: there are no errors to be left out of an average.
 *
 * watch connects once a millisecond until it is killed, and prints for each
 * connection when it was begun (CLOCK_MONOTONIC, ns) and who answered: ID, or "-".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 128 << 10, STEPS = 16 };

static char chunk[2 * CHUNK];

static void die(const char *what)
{
	fprintf(stderr, "netload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t read_clock(clockid_t id)
{
	struct timespec t;

	if (clock_gettime(id, &t))
		die("read clock");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void settle(int cpu, int nice)
{
	cpu_set_t set;

	if (nice && setpriority(PRIO_PROCESS, 0, nice))
		die("set priority");
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("choose CPU");
}

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static union address address(const char *ip, const char *port)
{
	union address a = { .in = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) } };

	if (inet_pton(AF_INET, ip, &a.in.sin_addr) == 1)
		return a;
	a = (union address){ .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(port)) } };
	errno = EINVAL;
	if (inet_pton(AF_INET6, ip, &a.in6.sin6_addr) != 1)
		die("address");
	return a;
}

static socklen_t length_of(const union address *a)
{
	return a->any.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);
}

static void set_flag(int fd, int level, int option)
{
	int one = 1;

	if (setsockopt(fd, level, option, &one, sizeof(one)))
		die("set socket option");
}

/* patience bounds how long a peer that is gone is waited for. */
static void patience(int fd, int ms)
{
	struct timeval t = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)))
		die("set timeout");
}

static int new_socket(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static void serve_datagrams(int fd, char id)
{
	for (;;) {
		union address from;
		socklen_t length = sizeof(from);

		if (recvfrom(fd, chunk, sizeof(chunk), 0, &from.any, &length) < 0)
			continue;
		sendto(fd, &id, 1, 0, &from.any, length); /* one that is lost is missed by the client */
	}
}

enum answers { NONE, ONE, ALL };

static void serve_connections(int fd, enum answers answers, char id)
{
	for (;;) {
		int c = accept(fd, NULL, NULL);

		if (c < 0)
			continue;
		set_flag(c, IPPROTO_TCP, TCP_NODELAY);
		patience(c, 5000);
		while (read(c, chunk, sizeof(chunk)) > 0)
			if (answers != NONE && (write(c, &id, 1) != 1 || answers == ONE))
				break;
		close(c);
	}
}

static void serve(const char *kind, const char *any, const char *port, char id)
{
	int datagrams = !strcmp(kind, "datagram");
	union address a = address(any, port);
	int fd = new_socket(a.any.sa_family, datagrams ? SOCK_DGRAM : SOCK_STREAM);

	set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
	if (a.any.sa_family == AF_INET6)
		set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (bind(fd, &a.any, length_of(&a)))
		die("bind");
	if (!datagrams && listen(fd, 1024))
		die("listen");
	puts("listening");
	fclose(stdout);
	if (datagrams)
		serve_datagrams(fd, id);
	serve_connections(fd, !strcmp(kind, "echo") ? ALL : !strcmp(kind, "once") ? ONE : NONE, id);
}

/* Both ends of a range of source ports, the lower in the lower half; 0 is any. */
static uint32_t ports;

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51 /* Linux 6.3; ports are as they come before that */
#endif

static int connected(int type, const union address *a)
{
	int fd = new_socket(a->any.sa_family, type);

	if (ports && setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &ports, sizeof(ports)) && errno != ENOPROTOOPT)
		die("choose ports");

	patience(fd, 2000);
	if (type == SOCK_STREAM)
		set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
	if (connect(fd, &a->any, length_of(a)))
		die("connect");
	return fd;
}

static void ask(int fd)
{
	if (write(fd, chunk, 1) != 1)
		die("send a request");
	if (read(fd, chunk, 1) != 1)
		die("receive an answer");
}

/* latencies counts by logarithm: each power of two has STEPS buckets. */
static uint32_t latencies[64 * STEPS];

static void note(int64_t ns)
{
	uint64_t v = ns < 2 * STEPS ? 2 * STEPS : ns;
	int power = 63 - __builtin_clzll(v);

	latencies[power * STEPS + ((v >> (power - 4)) & (STEPS - 1))]++;
}

static double percentile(int64_t ops, double share)
{
	int64_t seen = 0;

	for (int i = 0; i < 64 * STEPS; i++) {
		seen += latencies[i];
		if (seen > 0 && seen >= ops * share)
			return (double)(1ULL << (i / STEPS)) * (1 + (i % STEPS + 0.5) / STEPS);
	}
	return 0;
}

struct test {
	union address to;
	int fd;
};

static void do_ask(struct test *t) { ask(t->fd); }

static void do_connection(struct test *t)
{
	int fd = connected(SOCK_STREAM, &t->to);

	ask(fd);
	if (read(fd, chunk, 1) != 0)
		die("see the connection closed");
	close(fd);
}

static void do_send(struct test *t)
{
	for (size_t sent = 0; sent < CHUNK;) {
		ssize_t n = write(t->fd, chunk + sent, CHUNK - sent);

		if (n < 0)
			die("send");
		sent += n;
	}
}

static void client(const char *kind, union address to, double seconds, int server)
{
	struct test t = { .to = to, .fd = -1 };
	void (*once)(struct test *) = do_ask;
	clockid_t server_clock;
	int64_t ops = 0;

	if (!strcmp(kind, "crr"))
		once = do_connection;
	else
		t.fd = connected(!strcmp(kind, "udp") ? SOCK_DGRAM : SOCK_STREAM, &to);
	if (!strcmp(kind, "stream"))
		once = do_send;
	if ((errno = clock_getcpuclockid(server, &server_clock)))
		die("find the server's CPU clock");
	for (int i = 0; i < 20; i++) /* neighbours, caches, the first window */
		once(&t);

	int64_t cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) + read_clock(server_clock);
	int64_t start = read_clock(CLOCK_MONOTONIC), last = start, end = start + seconds * 1e9;

	while (last < end) {
		once(&t);
		int64_t at = read_clock(CLOCK_MONOTONIC);
		note(at - last);
		last = at;
		ops++;
	}
	cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) + read_clock(server_clock) - cpu;
	printf("{\"ops\":%lld,\"seconds\":%.6f,\"cpuNs\":%lld,\"p50Ns\":%.0f,\"p99Ns\":%.0f}\n",
	       (long long)ops, (last - start) * 1e-9, (long long)cpu, percentile(ops, 0.50), percentile(ops, 0.99));
}

/* who connects anew and returns who answered. */
static char who(const union address *to)
{
	int fd = new_socket(to->any.sa_family, SOCK_STREAM);
	char id = '-';

	patience(fd, 200);
	if (connect(fd, &to->any, length_of(to)) || write(fd, "?", 1) != 1 || read(fd, &id, 1) != 1)
		id = '-';
	close(fd);
	return id;
}

static void watch(union address to)
{
	const int64_t interval = 1000000;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int64_t next = read_clock(CLOCK_MONOTONIC);; next += interval) {
		struct timespec t = { .tv_sec = next / 1000000000, .tv_nsec = next % 1000000000 };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
		int64_t begun = read_clock(CLOCK_MONOTONIC);
		char id = who(&to);

		printf("%lld %c\n", (long long)begun, id);
		if (begun - next > 50 * interval) /* after a long wait, not all at once */
			next = begun;
	}
}

static void usage(void)
{
	fputs("usage: netload [-c CPU] [-n NICE] [-6] serve echo|once|sink|datagram PORT ID\n"
	      "       netload [-c CPU] [-n NICE] [-p LOW-HIGH] rr|crr|udp|stream ADDR PORT SECONDS SERVER-PID\n"
	      "       netload watch ADDR PORT\n", stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	const char *any = "0.0.0.0";
	int cpu = -1, nice = 0;

	for (int o; (o = getopt(argc, argv, "+c:n:p:6")) != -1;) {
		if (o == 'c')
			cpu = atoi(optarg);
		else if (o == 'p')
			ports = strtoul(optarg, &optarg, 10) | strtoul(optarg + 1, NULL, 10) << 16;
		else if (o == '6')
			any = "::";
		else if (o == 'n')
			nice = atoi(optarg);
		else
			usage();
	}
	argv += optind;
	argc -= optind;
	signal(SIGPIPE, SIG_IGN);
	settle(cpu, nice);
	if (argc == 4 && !strcmp(argv[0], "serve"))
		serve(argv[1], any, argv[2], argv[3][0]);
	else if (argc == 3 && !strcmp(argv[0], "watch"))
		watch(address(argv[1], argv[2]));
	else if (argc == 5)
		client(argv[0], address(argv[1], argv[2]), atof(argv[3]), atoi(argv[4]));
	else
		usage();
	return 0;
}
